"""How closely training on S follows an expert (CWX, §3.2; C5)."""

import torch
from torch import nn

from cwx.data.segments import check_range, read_segment
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.explanations import Explanations
from cwx.functional.distances import squared_distance
from cwx.functional.losses import inner_loss
from cwx.functional.unroll import unroll
from cwx.subject import Subject
from cwx.trajectories import Trajectory


class Fidelity:
    """Means of ‖θ_{k+N} − θ_M‖² and ‖θ_k − θ_{k+N}‖² and their ratio, on held-out experts.

    The means run over every starting epoch of the range. The numbers are ``fidelity/matched``,
    ``fidelity/reference`` and ``fidelity/ratio`` (0 is a perfect copy, 1 no better than standing
    still; 0.46 in the paper).

    Args:
        source: the method whose images are S.
        inner_steps, span, start_min, start_max, inner_rate: as in the distillation.
    """

    def __init__(
        self,
        *,
        source: str,
        inner_steps: int,
        span: int,
        start_min: int,
        start_max: int,
        inner_rate: float,
    ) -> None:
        self.source, self.inner_steps, self.span = source, inner_steps, span
        self.start_min, self.start_max, self.inner_rate = (
            start_min,
            start_max,
            inner_rate,
        )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        if self.source not in sources:
            raise ValueError(
                f"fidelity is measured on {self.source!r}, which this study does not make: "
                f"set evaluation.fidelity.source to one of {', '.join(sources)}"
            )
        if not subject.held_out:
            raise ValueError(
                "fidelity needs an expert that distillation never saw: "
                "give experts.held_out at least one seed"
            )
        check_range(
            subject.held_out,
            span=self.span,
            start_min=self.start_min,
            start_max=self.start_max,
        )
        network, explanations = subject.network(), sources[self.source]
        rows: list[Row] = [
            {
                "expert": expert,
                "start": start,
                **self._squares(network, explanations, trajectory, start),
            }
            for expert, trajectory in enumerate(subject.held_out)
            for start in range(self.start_min, self.start_max + 1)
        ]
        matched, reference = (
            sum(float(row[name]) for row in rows) / len(rows) for name in ("matched", "reference")
        )
        numbers = {
            "matched": matched,
            "reference": reference,
            "ratio": matched / reference,
        }
        return Outcome(
            numbers={f"fidelity/{name}": value for name, value in numbers.items()},
            tables={"fidelity": rows},
        )

    def _squares(
        self, network: nn.Module, explanations: Explanations, trajectory: Trajectory, start: int
    ) -> dict[str, float]:
        names = [name for name, _ in network.named_parameters()]
        segment = read_segment(trajectory, names, start=start, span=self.span)
        begin, target = (tuple(state.values()) for state in segment)
        loss = inner_loss(network, names, explanations.labels)
        rate = torch.tensor(self.inner_rate)
        reached = unroll(loss, begin, explanations.images, rate, self.inner_steps)
        return {
            "matched": squared_distance(reached, target).item(),
            "reference": squared_distance(begin, target).item(),
        }
