"""The powers of the candidates of one source and size on one network (ISCP, §4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cwx.evaluations.outcome import Row
from cwx.evaluations.patterns.probe import Predictions, Probe
from cwx.evaluations.patterns.selection import (
    Candidate,
    CandidateScore,
    CandidateSet,
    CanvasChoice,
    best_by_class,
    score_candidates,
)


@dataclass(frozen=True, kw_only=True)
class SetPower:
    """The powers of a candidate set.

    Attributes:
        candidates: the set.
        best, class_rows: the best candidate of each class, and its row.
        canvas_rows: a row for each candidate.
    """

    candidates: CandidateSet
    best: Sequence[Candidate]
    class_rows: list[Row]
    canvas_rows: list[Row]


def measure_set(
    candidates: CandidateSet,
    probe: Probe,
    searched: Tensor,
    classes: Sequence[str],
    choice: CanvasChoice,
) -> SetPower:
    """The power of every candidate on the network of `probe`.

    Args:
        candidates: what to measure.
        probe: the network and its test images.
        searched: boolean mask, the probe's images that the search could use.
        classes: the names of all classes.
        choice: how the best candidate of a class is chosen.
    """

    def rows(scores: Sequence[CandidateScore]) -> list[Row]:
        return [_row(candidates, score, probe, searched, classes) for score in scores]

    scores = score_candidates(candidates, probe, searched)
    best = best_by_class(scores, choice)
    return SetPower(
        candidates=candidates,
        best=[score.candidate for score in best],
        class_rows=rows(best),
        canvas_rows=rows(scores),
    )


def _row(
    candidates: CandidateSet,
    score: CandidateScore,
    probe: Probe,
    searched: Tensor,
    classes: Sequence[str],
) -> Row:
    candidate = score.candidate
    return {
        "source": candidates.source,
        "size": candidates.size,
        "class": classes[candidate.label],
        "canvas": candidate.canvas,
        "tied": candidate.tied,
        "alpha": "" if candidate.alpha is None else candidate.alpha,
        "area": "" if candidate.area is None else candidate.area,
        "loss": score.loss,
        **measure_power(
            score.predictions, probe, candidate.label, searched, relative=candidates.relative
        ),
    }


def measure_power(
    predictions: Predictions, probe: Probe, label: int, searched: Tensor, *, relative: bool
) -> dict[str, float]:
    """The power of one candidate.

    The images of the class itself are in no D_n: the accuracy on the class, in the denominator of
    both powers, is that on all of them.

    Args:
        predictions: on the probe's images, with the candidate.
        probe: the network and its test images.
        label: the class of the candidate.
        searched: boolean mask, the probe's images that the search could use.
        relative: whether the success rate is divided by the accuracy on the class.

    Returns:
        ``power`` and ``success`` on images of other classes outside D_n, or on all of them if the
        search could use all; ``power_whole`` on all images; ``accuracy`` on the class.
    """
    others = probe.images.labels != label
    held_out = probe.power(predictions, label, images_outside(probe, label, searched))
    whole = probe.power(predictions, label, others)
    return {
        "power": (held_out.compute() if relative else held_out.success).item(),
        "power_whole": (whole.compute() if relative else whole.success).item(),
        "success": held_out.success.item(),
        "accuracy": held_out.accuracy.item(),
    }


def images_outside(probe: Probe, label: int, searched: Tensor) -> Tensor:
    """Boolean mask ``[n]`` of the images of other classes outside D_n, or of all of them."""
    others = probe.images.labels != label
    outside = others & ~searched
    return outside if outside.any() else others


def success_rate(predictions: Tensor, label: int, counted: Tensor) -> float:
    """The fraction of the images that `counted` marks which are classified as the class, 0-1."""
    return (predictions[counted] == label).double().mean().item()


def finite(rows: Sequence[Row], column: str) -> list[float]:
    """The finite values of a column: those of classes that the network recognises."""
    return [value for row in rows if math.isfinite(value := float(row[column]))]


def split_by_target(rows: Sequence[Row], target: str | None) -> dict[str, list[Row]]:
    """The rows of the target class of a backdoor, ``target``, and of all other classes, ``others``.

    Empty if `target` is ``None`` or has no row, or if no other class has one.
    """
    if target not in (names := {str(row["class"]) for row in rows}) or len(names) < 2:
        return {}
    return {
        "target": [row for row in rows if row["class"] == target],
        "others": [row for row in rows if row["class"] != target],
    }
