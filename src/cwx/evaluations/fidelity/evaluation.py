"""Distance between training on S and an expert's trajectory (CWX, §3.2)."""

import math
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Annotated

from cwx.data.trajectory_segments import check_range
from cwx.evaluations.fidelity.real_data import RealData
from cwx.evaluations.fidelity.segments import SegmentMeasurement
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.functional.augmentation import Strategy
from cwx.functional.inner_loop import Inner
from cwx.functional.spacing import central
from cwx.functional.spread import sample_std
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class Fidelity:
    """How closely training on S follows an expert, beside what real data reach.

    The fidelity ratio of a segment is ‖θ_{k+N} − θ_M‖² / ‖θ_k − θ_{k+N}‖² (0: training on S
    reproduces the expert; 1: no better than the start θ_k). Three values calibrate it, which depend
    on the noise of the training and on M, but not on S:

    - *replica*: the expert trained again from θ_k with other batches, instead of θ_M. A network
      cannot be predicted more precisely from θ_k alone than it predicts itself: two independent
      ends differ by twice the variance of the end.
    - *real data*: M steps on batches of real images at their best learning rate, instead of M steps
      on S.
    - *agreement*: the fraction of test images of which the networks at θ_M and θ_{k+N} predict the
      same class; beside it that of θ_k, and of the replica, with θ_{k+N}.

    The metrics are of held-out experts: ``fidelity/ratio`` with numerator ``fidelity/matched`` and
    denominator ``fidelity/reference``, which are means over all experts and start epochs (the paper
    reports 0.46 and does not name the experts); ``fidelity/ratio/std``, the sample standard
    deviation of the ratio over held-out experts; ``fidelity/replica`` and ``fidelity/real``, ratios
    of such means over the calibrated start epochs, beside ``fidelity/ratio/calibrated``, that of S
    over these start epochs; ``fidelity/agreement``, ``fidelity/agreement/start``,
    ``fidelity/agreement/replica`` and, over the start epochs of the latter,
    ``fidelity/agreement/calibrated``;
    ``fidelity/accuracy``, ``…/start`` and ``…/expert``, the test accuracies of θ_M, θ_k and
    θ_{k+N}. Those of as many experts that S was fitted to are ``fidelity/seen/ratio`` and so on,
    without replicas and real data.
    The table ``fidelity`` has a row per expert and start epoch, ``fidelity_epochs`` a row per start
    epoch.

    Args:
        source: the method whose images are S.
        inner: how to train on S, as in the distillation.
        span, start_min, start_max: the segments, as in the distillation.
        calibrated: the number of start epochs, the middles of equal parts of the range, from which
            each held-out expert is compared with a replica and with real data, which takes most of
            the time; 0: none.
        real_batch_size: images per step on real data; null for no such training.
        real_augment: augmentation of real images.
        images: the number of test images, spread evenly over the test set, for agreement and
            accuracy; null for all.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        source: str,
        inner: Inner,
        span: Annotated[int, ">= 1"],
        start_min: Annotated[int, ">= 0"],
        start_max: Annotated[int, ">= 0"],
        calibrated: Annotated[int, ">= 0"],
        real_batch_size: Annotated[int, ">= 1"] | None,
        real_augment: Strategy | None,
        images: Annotated[int, ">= 1"] | None,
    ) -> None:
        self.source, self.inner, self.span = source, inner, span
        self.start_min, self.start_max = start_min, start_max
        self.calibrated, self.images = calibrated, images
        self.real_batch_size, self.real_augment = real_batch_size, real_augment

    def check(self, plan: Plan) -> None:
        plan.require_images(self.source, "evaluation.fidelity.source")
        if not plan.held_out:
            raise ValueError(
                "evaluation=[fidelity] needs a held-out expert, and this study has none: "
                "give experts.held_out at least one seed"
            )
        plan.require_segments(
            "evaluation.fidelity",
            plan.held_out_epochs,
            span=self.span,
            start_min=self.start_min,
            start_max=self.start_max,
        )

    def replica_starts(self) -> list[int]:
        """The start epochs k of the replicas, which train from θ_k to epoch k + N."""
        starts = range(self.start_min, self.start_max + 1)
        return [starts[index] for index in central(len(starts), self.calibrated)]

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        held_out = [*subject.held_out, *subject.early_held_out]
        fitted = subject.fitted[: len(held_out)]
        for trajectories in (held_out, fitted):
            check_range(
                trajectories, span=self.span, start_min=self.start_min, start_max=self.start_max
            )
        measure = SegmentMeasurement(
            subject,
            explanations=of_kind(sources, Explanations)[self.source],
            inner=self.inner,
            span=self.span,
            real=self._real_data(subject),
            test=subject.data.splits.test.spread(self.images),
        )
        calibrated = self.replica_starts()

        def rows_of(start: int) -> list[Row]:
            # The first expert chooses the learning rate on real images for all others.
            return [
                {
                    "seen": seen,
                    "expert": expert,
                    "start": start,
                    **measure(trajectory, start, real=seen == "no" and start in calibrated),
                }
                for seen, trajectories in (("no", held_out), ("yes", fitted))
                for expert, trajectory in enumerate(trajectories)
            ]

        by_start = subject.ranks.map(rows_of, range(self.start_min, self.start_max + 1))
        # By expert, then by start.
        rows: list[Row] = [row for of_expert in zip(*by_start, strict=True) for row in of_expert]
        metrics: dict[str, float] = {}
        for seen, prefix in (("no", "fidelity"), ("yes", "fidelity/seen")):
            metrics |= _metrics(prefix, [row for row in rows if row["seen"] == seen])
        return Outcome(
            metrics=metrics,
            tables={"fidelity": rows, "fidelity_epochs": _by_start(rows)},
        )

    def _real_data(self, subject: Subject) -> RealData | None:
        data = subject.data
        if self.real_batch_size is None or not len(data.splits.train):
            return None
        return RealData(
            images=data.splits.train,
            normalization=data.normalization,
            batch_size=self.real_batch_size,
            augment=self.real_augment,
        )


# Columns of the table that are averaged over rows, with the names of their metrics.
_MEANS = {
    "agreement": "agreement",
    "agreement_start": "agreement/start",
    "agreement_replica": "agreement/replica",
    "accuracy": "accuracy",
    "accuracy_start": "accuracy/start",
    "accuracy_expert": "accuracy/expert",
}
# Columns of ratios to the squared distance of the expert, of calibrated starts alone.
_CALIBRATION = ("replica", "real")


def _metrics(prefix: str, rows: Sequence[Row]) -> dict[str, float]:
    metrics = {
        f"{prefix}/matched": _mean(rows, "matched"),
        f"{prefix}/reference": _mean(rows, "reference"),
        f"{prefix}/ratio": _ratio(rows),
    }
    by_expert = [_ratio(group) for group in _groups(rows, "expert").values()]
    if len(by_expert) > 1:
        metrics[f"{prefix}/ratio/std"] = sample_std(by_expert)
    for column in _CALIBRATION:
        if measured := _with(rows, column):
            metrics[f"{prefix}/{column}"] = _ratio(measured, column)
            metrics[f"{prefix}/ratio/calibrated"] = _ratio(measured)
    for column, name in _MEANS.items():
        if measured := _with(rows, column):
            metrics[f"{prefix}/{name}"] = _mean(measured, column)
    if measured := _with(rows, "agreement_replica"):
        metrics[f"{prefix}/agreement/calibrated"] = _mean(measured, "agreement")
    return metrics


def _by_start(rows: Sequence[Row]) -> list[Row]:
    """A row per start epoch and kind of experts: means over experts."""
    return [
        {
            "seen": group[0]["seen"],
            "start": group[0]["start"],
            "experts": len(group),
            "ratio": _ratio(group),
            "ratio_std": sample_std(float(row["ratio"]) for row in group) if len(group) > 1 else "",
            **{column: _of_measured(_ratio, group, column) for column in _CALIBRATION},
            **{column: _of_measured(_mean, group, column) for column in _MEANS},
        }
        for seen in ("no", "yes")
        for group in _groups([row for row in rows if row["seen"] == seen], "start").values()
    ]


def _groups(rows: Sequence[Row], column: str) -> dict[str | int | float, list[Row]]:
    groups: dict[str | int | float, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def _with(rows: Sequence[Row], column: str) -> list[Row]:
    """The rows that have a value in a column."""
    return [row for row in rows if row[column] != ""]


def _of_measured(
    average: Callable[[Sequence[Row], str], float], rows: Sequence[Row], column: str
) -> float | str:
    """The average over the rows that have a value; empty if none has."""
    measured = _with(rows, column)
    return average(measured, column) if measured else ""


def _ratio(rows: Sequence[Row], column: str = "ratio") -> float:
    """The mean squared distance of a column of ratios, divided by the mean of the experts.

    The ratio of each row counts by the squared distance that its expert moves.
    """
    moved = [float(row["reference"]) for row in rows]
    ratios = [float(row[column]) for row in rows]
    return math.fsum(m * r for m, r in zip(moved, ratios, strict=True)) / math.fsum(moved)


def _mean(rows: Sequence[Row], column: str) -> float:
    return mean(float(row[column]) for row in rows)
