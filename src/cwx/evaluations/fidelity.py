"""How closely training on S follows an expert (CWX, §3.2; C5)."""

import torch

from cwx.data.segments import check_range
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.functional.distances import squared_distance
from cwx.functional.losses import inner_loss
from cwx.functional.unroll import unroll
from cwx.subject import Subject


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
        rows = [
            self._row(subject, sources, expert, start)
            for expert in range(len(subject.held_out))
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

    def _row(self, subject: Subject, sources: Sources, expert: int, start: int) -> Row:
        explanations, trajectory = sources[self.source], subject.held_out[expert]
        network = subject.network()
        names = [name for name, _ in network.named_parameters()]
        begin, target = (
            tuple(state[name] for name in names)
            for state in (trajectory.state(start), trajectory.state(start + self.span))
        )
        loss = inner_loss(network, names, explanations.labels)
        rate = torch.tensor(self.inner_rate)
        reached = unroll(loss, begin, explanations.images, rate, self.inner_steps)
        return {
            "expert": expert,
            "start": start,
            "matched": squared_distance(reached, target).item(),
            "reference": squared_distance(begin, target).item(),
        }
