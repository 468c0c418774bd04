"""The pattern that stands for a class among those of its canvases (ISCP, §3)."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.evaluations.patterns.probe import Predictions, Probe
from cwx.explanations.patterns import Attach, BinaryPatterns, Patterns, Perturbations
from cwx.functional.images import rescale

log = logging.getLogger(__name__)

CanvasChoice = Literal["lowest_loss", "highest_power"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A pattern or perturbation, one of several of its class.

    Attributes:
        label: the class.
        canvas: its index among the candidates of the class, from 0.
        tied: number of its pixels that were drawn among pixels of equal mask.
        attach: puts it on images.
        picture: the candidate alone, a unit image ``[C, H, W]``.
        alpha: the weight α of its search; ``None`` if it has none.
        mask: boolean mask ``[H, W]``, the pixels that it replaces; ``None`` if it adds to all.
        area: the fraction of the image's pixels in `mask`; ``None`` without one.
    """

    label: int
    canvas: int
    tied: int
    attach: Attach
    picture: Tensor
    mask: Tensor | None = None
    alpha: float | None = None

    @property
    def area(self) -> float | None:
        return None if self.mask is None else self.mask.double().mean().item()


@dataclass(frozen=True, kw_only=True)
class CandidateSet:
    """Candidates of one source and size, several per class.

    Attributes:
        source: name of the source.
        size: as in the tables: the fraction of the image's pixels, or ``gamma-<γ>``; for
            perturbations the radius on the 0-255 scale.
        explains: the kind of network that they explain.
        searched: boolean mask ``[t]``, the test images of the search.
        relative: whether the power is the success rate divided by the accuracy on the class.
        gamma: γ, if the patterns are the pixels of mask > γ; else ``None``.
        left_out: the number of classes without a candidate.
    """

    source: str
    size: str
    explains: str
    searched: Tensor
    candidates: Sequence[Candidate]
    relative: bool = True
    gamma: float | None = None
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class CandidateScore:
    """A candidate with its predictions, its loss and its success rate.

    Attributes:
        predictions: the network's predictions on the images that carry the candidate.
        loss: the mean over images of other classes in the search (D_n); over all images of other
            classes if the search used none. It chooses among the candidates of a class.
        success: the fraction of all images of other classes that are classified as the class, 0-1.
    """

    candidate: Candidate
    predictions: Predictions
    loss: float
    success: float


def candidates_of_size(source: str, patterns: Patterns, size: float) -> CandidateSet:
    """The patterns of a source, cut to a fraction of the pixels."""
    return CandidateSet(
        source=source,
        size=f"{size:g}",
        explains=patterns.explains,
        searched=patterns.searched,
        candidates=_candidates(patterns, patterns.cut(size), range(len(patterns.labels))),
    )


def candidates_above(
    source: str, patterns: Patterns, gamma: float, classes: Sequence[str]
) -> CandidateSet:
    """The patterns of a source, the pixels of mask > γ (ISCP, Algorithm 1, line 11).

    A mask of which γ keeps nothing or everything gives no candidate; a warning names its class.

    Args:
        gamma: γ, 0-1.
        classes: the names of all classes.
    """
    cut = patterns.threshold(gamma)
    kept = cut.masks.flatten(1).double().mean(1)
    usable = (kept > 0) & (kept < 1)
    for label in patterns.labels[~usable].unique().tolist():
        refused = (patterns.labels == label) & ~usable
        for amount, masks in (("nothing", refused & (kept == 0)), ("all", refused & (kept == 1))):
            if masks.any():
                _warn(source, gamma, amount, classes[label], patterns.masks[masks])
    left = set(patterns.labels.tolist()) - set(patterns.labels[usable].tolist())
    return CandidateSet(
        source=source,
        size=f"gamma-{gamma:g}",
        explains=patterns.explains,
        searched=patterns.searched,
        candidates=_candidates(patterns, cut, usable.nonzero()[:, 0].tolist()),
        gamma=gamma,
        left_out=len(left),
    )


def _warn(source: str, gamma: float, amount: str, name: str, masks: Tensor) -> None:
    remedy = "lower" if amount == "nothing" else "higher"
    log.warning(
        "%s: gamma %g keeps %s of %d mask%s of class %r (values %.3g to %.3g), left out: choose a "
        "%s gamma, or a size",
        source, gamma, amount, len(masks), "" if len(masks) == 1 else "s", name,
        masks.min().item(), masks.max().item(), remedy,
    )  # fmt: skip


def _candidates(
    patterns: Patterns, cut: BinaryPatterns, indices: Sequence[int]
) -> Sequence[Candidate]:
    pictures = cut.on_grey()
    return [
        Candidate(
            label=int(patterns.labels[i]),
            canvas=int((patterns.labels[:i] == patterns.labels[i]).sum()),
            tied=int(cut.tied[i]),
            attach=cut.attach(i),
            picture=pictures[i],
            mask=cut.masks[i],
            alpha=None if patterns.alphas is None else float(patterns.alphas[i]),
        )
        for i in indices
    ]


def candidates_by_radius(source: str, perturbations: Perturbations) -> list[CandidateSet]:
    """The perturbations of a source, a set per radius."""
    pictures = rescale(perturbations.deltas)
    return [
        CandidateSet(
            source=source,
            size=f"{255 * radius:g}",
            explains=perturbations.explains,
            searched=perturbations.searched,
            relative=False,
            candidates=[
                Candidate(
                    label=int(perturbations.labels[i]),
                    canvas=0,
                    tied=0,
                    attach=perturbations.attach(i),
                    picture=pictures[i],
                )
                for i in (perturbations.epsilons == radius).nonzero()[:, 0].tolist()
            ],
        )
        for radius in perturbations.epsilons.unique().tolist()
    ]


def canvas_of(patterns: Patterns, candidate: Candidate) -> Tensor:
    """The canvas of a candidate of these patterns, ``[C, H, W]``."""
    return patterns.canvases[patterns.labels == candidate.label][candidate.canvas]


def score_candidates(
    candidates: CandidateSet, probe: Probe, searched: Tensor
) -> list[CandidateScore]:
    """The score of every candidate, in order.

    The loss, which chooses among them, is on D_n itself, also where the probe has few of its images
    or none; on at most as many images as the probe has.

    Args:
        candidates: what to score.
        probe: the network and its test images.
        searched: boolean mask, the probe's images that the search used.
    """
    # The probe has all images of the search, or the search used none.
    is_covered = int(searched.sum()) == int(candidates.searched.sum())
    test = probe.subject.data.splits.test
    scores, of_class = [], dict[int, ImageSet]()
    for candidate in candidates.candidates:
        label, predictions = candidate.label, probe.predict(candidate.attach, candidate.label)
        others = probe.images.labels != label
        if label not in of_class and not is_covered:
            pool = test.at(candidates.searched & (test.labels.cpu() != label))
            of_class[label] = pool.spread(len(probe.images))
        if label in of_class:
            loss = probe.mean_loss(of_class[label], candidate.attach, label)
        else:
            mask = others & searched if (others & searched).any() else others
            loss = predictions.loss[mask].mean().item()
        hits = predictions.classes[others] == label
        success = hits.double().mean().item()
        scores.append(
            CandidateScore(candidate=candidate, predictions=predictions, loss=loss, success=success)
        )
    return scores


def by_class(scores: Sequence[CandidateScore], choice: CanvasChoice) -> list[list[CandidateScore]]:
    """The scores of each class, the best first; classes in the order in which they appear.

    Args:
        scores: of the candidates of one set.
        choice: ``lowest_loss`` on D_n (ISCP, §3), or ``highest_power`` on all images (what Tables
            1 and 2 of ISCP equal). Among equal powers the lowest loss decides.
    """
    groups: dict[int, list[CandidateScore]] = {}
    for score in scores:
        groups.setdefault(score.candidate.label, []).append(score)

    def order(score: CandidateScore) -> tuple[float, float]:
        # The candidates of a class have one accuracy: their success rates are in the order of
        # their powers, and are finite also for a class that is never recognised.
        return (-score.success if choice == "highest_power" else 0.0, score.loss)

    return [sorted(of_class, key=order) for of_class in groups.values()]


def best_by_class(scores: Sequence[CandidateScore], choice: CanvasChoice) -> list[CandidateScore]:
    """The best score of each class; see `by_class`."""
    return [of_class[0] for of_class in by_class(scores, choice)]


def expected_of_fewer(values: Sequence[float], count: int) -> float:
    """The mean, over all subsets of `count` values, of the first value of the subset.

    If the values are in the order of preference, it is what the best of `count` random candidates
    reaches. The value at place i, from 0, comes first in C(n − i − 1, count − 1) subsets.

    >>> [round(expected_of_fewer([0.9, 0.6, 0.3], count), 9) for count in (1, 2, 3)]
    [0.6, 0.8, 0.9]

    Args:
        values: of n candidates, the preferred first.
        count: 1 to n.
    """
    total = math.comb(len(values), count)
    weights = [math.comb(len(values) - i - 1, count - 1) / total for i in range(len(values))]
    return sum(weight * value for weight, value in zip(weights, values, strict=True) if weight)
