"""The powers of the candidates of one source and size on one network (ISCP, §4)."""

import math
from collections.abc import Iterable, Sequence
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
) -> dict[str, float | str]:
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
        ``power`` and ``success`` on images of other classes outside D_n, empty if there are none;
        ``power_whole`` on all images; ``accuracy`` on the class.
    """
    others = probe.images.labels != label
    counted = images_outside(probe, label, searched)
    held_out = probe.power(predictions, label, counted)
    whole = probe.power(predictions, label, others)
    power = held_out.compute() if relative else held_out.success
    has_images = bool(counted.any())
    return {
        "power": power.item() if has_images else "",
        "power_whole": (whole.compute() if relative else whole.success).item(),
        "success": held_out.success.item() if has_images else "",
        "accuracy": held_out.accuracy.item(),
    }


def images_outside(probe: Probe, label: int, searched: Tensor) -> Tensor:
    """Boolean mask ``[n]`` of the images of other classes outside D_n, of which none may be left.

    Images of D_n never stand in for them: a search makes its patterns for these.
    """
    return (probe.images.labels != label) & ~searched


def success_rate(predictions: Tensor, label: int, counted: Tensor) -> float:
    """The fraction of the images that `counted` marks, one or more, which are classified as the
    class, 0-1.
    """
    assert counted.any()
    return (predictions[counted] == label).double().mean().item()


def measured(rows: Iterable[Row], column: str) -> list[float]:
    """The values of a column, without those that are empty."""
    return [float(row[column]) for row in rows if row[column] != ""]


def finite(rows: Sequence[Row], column: str) -> list[float]:
    """The finite values of a column: those of classes that the network recognises."""
    return [value for value in measured(rows, column) if math.isfinite(value)]


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
