"""Distance between an expert's trajectory and training on S (CWX, §3.2; C5)."""

from typing import Annotated

import torch

from cwx.data.trajectory_segments import check_range, read_segment
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.functional.inner_loop import Inner
from cwx.functional.loss_derivatives import Eager
from cwx.functional.network_loss import NetworkLoss
from cwx.functional.trajectory_distance import squared_distance
from cwx.storage.trajectories import Trajectory
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class Fidelity:
    """Means of ‖θ_{k+N} − θ_M‖² and ‖θ_k − θ_{k+N}‖² and their ratio.

    The means run over every starting epoch of the range. The metrics are ``fidelity/matched``,
    ``fidelity/reference`` and ``fidelity/ratio`` (0: S reproduces the expert; 1: no better than
    the start θ_k; the paper reports 0.46 and does not name the experts). They are of held-out
    experts; those of as many experts that S was fitted to are ``fidelity/seen/matched`` and so on.

    Args:
        source: the method whose images are S.
        inner: how to train on S, as in the distillation.
        span, start_min, start_max: the segments, as in the distillation.
    """

    def __init__(
        self,
        *,
        source: str,
        inner: Inner,
        span: Annotated[int, ">= 1"],
        start_min: Annotated[int, ">= 0"],
        start_max: Annotated[int, ">= 0"],
    ) -> None:
        self.source, self.inner, self.span = source, inner, span
        self.start_min, self.start_max = start_min, start_max

    def check(self, plan: Plan) -> None:
        plan.require_images(self.source, "evaluation.fidelity.source")
        if not plan.held_out:
            raise ValueError(
                "evaluation=[fidelity] needs a held-out expert, and this study has none: "
                "give experts.held_out at least one seed"
            )
        plan.require_segments(
            "evaluation.fidelity",
            {} if plan.recipe_epochs is None else {"recipe.epochs": plan.recipe_epochs},
            span=self.span,
            start_min=self.start_min,
            start_max=self.start_max,
        )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        check_range(
            subject.held_out,
            span=self.span,
            start_min=self.start_min,
            start_max=self.start_max,
        )
        loss = NetworkLoss(subject.network())
        explanations = of_kind(sources, Explanations)[self.source]
        fitted = subject.trajectories[: len(subject.held_out)]
        rows: list[Row] = [
            {
                "seen": seen,
                "expert": expert,
                "start": start,
                **self._squared_distances(loss, explanations, trajectory, start),
            }
            for seen, trajectories in (("no", subject.held_out), ("yes", fitted))
            for expert, trajectory in enumerate(trajectories)
            for start in range(self.start_min, self.start_max + 1)
        ]
        held_out_rows, fitted_rows = (
            [row for row in rows if row["seen"] == seen] for seen in ("no", "yes")
        )
        return Outcome(
            metrics=_metrics("fidelity", held_out_rows) | _metrics("fidelity/seen", fitted_rows),
            tables={"fidelity": rows},
        )

    def _squared_distances(
        self, loss: NetworkLoss, explanations: Explanations, trajectory: Trajectory, start: int
    ) -> dict[str, float]:
        begin, target = read_segment(trajectory, loss.vector, start=start, span=self.span)
        learned = explanations.inner_learning_rate
        rate = torch.tensor(self.inner.learning_rate) if learned is None else learned
        descent = self.inner.descent(explanations.labels, key=(start,))
        end = descent.reach(Eager(loss), begin, explanations.images, rate)
        return {
            "matched": squared_distance(end, target).item(),
            "reference": squared_distance(begin, target).item(),
        }


def _metrics(prefix: str, rows: list[Row]) -> dict[str, float]:
    matched, reference = (
        sum(float(row[name]) for row in rows) / len(rows) for name in ("matched", "reference")
    )
    return {
        f"{prefix}/matched": matched,
        f"{prefix}/reference": reference,
        f"{prefix}/ratio": matched / reference,
    }
