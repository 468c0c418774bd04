"""Segments (θ_k, θ_{k+N}) of expert trajectories, drawn from disk as they are needed (C2).

Files are mapped into memory, and only the segments of this step and the next are held, so that
the host's memory does not depend on the number of experts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import Sampler

from cwx.data.step_loaders import place
from cwx.functional.rng import stream
from cwx.storage.trajectories import Trajectory, listed

# A network's parameters as one vector [P], from its state by name.
Vector = Callable[[Mapping[str, Tensor]], Tensor]


class Segment(NamedTuple):
    """θ_k and θ_{k+N}, one vector ``[P]`` each."""

    start: Tensor
    target: Tensor


class SegmentBatch(NamedTuple):
    """One rank's segments of a step, and the number on all ranks."""

    segments: list[Segment]
    total: int


class Segments(L.LightningDataModule):
    """Segments drawn uniformly over experts and starting epochs.

    Args:
        trajectories: of one network.
        vector: makes one vector of the parameters in a state.
        span: N, in epochs.
        start_min, start_max: the range of k, both ends included.
        per_step: segments a step, over all ranks.
        epoch_steps: steps an epoch.
        seed: what is drawn at a step is a function of it and of the step.

    Raises:
        ValueError: the range is empty or goes beyond the recorded epochs.
    """

    def __init__(
        self,
        *,
        trajectories: Sequence[Trajectory],
        vector: Vector,
        span: int,
        start_min: int,
        start_max: int,
        per_step: int,
        epoch_steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        check_range(trajectories, span=span, start_min=start_min, start_max=start_max)
        if per_step < 1:
            raise ValueError(f"a step takes {per_step} segments: give 1 or more")
        self.dataset = _SegmentSet(trajectories, vector, span)
        self.starts = range(start_min, start_max + 1)
        self.per_step, self.epoch_steps, self.seed = per_step, epoch_steps, seed

    def train_dataloader(self) -> "Ahead":
        rank, ranks = place(self)
        sampler = SegmentSampler(
            experts=len(self.dataset.trajectories),
            starts=self.starts,
            per_step=self.per_step,
            steps=self.epoch_steps,
            seed=self.seed,
            rank=rank,
            ranks=ranks,
        )
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return Ahead(self.dataset, sampler, pin=pin)


class Ahead:
    """Loads a step's batch while the step before it computes.

    One thread does what worker processes would, without their copies: reading a file leaves the
    interpreter free.

    Args:
        dataset: makes a batch of what `sampler` draws.
        sampler: what Lightning tells the epoch.
        pin: whether batches go to page-locked memory, from where a GPU fetches them faster.
    """

    def __init__(self, dataset: "_SegmentSet", sampler: "SegmentSampler", *, pin: bool) -> None:
        self.dataset, self.sampler, self.pin = dataset, sampler, pin

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[SegmentBatch]:
        draws = iter(self.sampler)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._load, next(draws, None))
            while (batch := coming.result()) is not None:
                coming = reader.submit(self._load, next(draws, None))
                yield batch

    def _load(self, draw: "Draw | None") -> SegmentBatch | None:
        if draw is None:
            return None
        batch = self.dataset[draw]
        if not self.pin:
            return batch
        pinned = [Segment(*(theta.pin_memory() for theta in segment)) for segment in batch.segments]
        return batch._replace(segments=pinned)


def check_range(
    trajectories: Sequence[Trajectory], *, span: int, start_min: int, start_max: int
) -> None:
    """Refuse a range of segments that some trajectory cannot serve.

    Raises:
        ValueError: with the remedy.
    """
    if span < 1:
        raise ValueError(f"a segment spans {span} epochs: give 1 or more")
    if not 0 <= start_min <= start_max:
        raise ValueError(
            f"segments start in epochs {start_min} to {start_max}: give 0 <= start_min <= start_max"
        )
    recorded = min(trajectory.epochs for trajectory in trajectories)
    if start_max + span > recorded:
        raise ValueError(
            f"segment [{start_max}, {start_max + span}] exceeds the {recorded} recorded epochs: "
            f"lower start_max to {recorded - span} or record more (recipe.epochs)"
        )
    for start, trajectory in product(range(start_min, start_max + 1), trajectories):
        if absent := [k for k in (start, start + span) if k not in trajectory.recorded]:
            lower = f"lower start_max to {start - 1}" if start > start_min else "start elsewhere"
            raise ValueError(
                f"segment [{start}, {start + span}] needs epoch {absent[0]}, which is not among "
                f"those recorded in {trajectory.path} ({listed(trajectory.recorded)}): "
                f"raise recipe.recording.epochs to {start_max + span} or {lower}"
            )


def read_segment(trajectory: Trajectory, vector: Vector, *, start: int, span: int) -> Segment:
    """θ_start and θ_{start+span} of one expert.

    Raises:
        ValueError: an epoch was not recorded, or its file is damaged.
    """
    return Segment(*(vector(trajectory.state(epoch)) for epoch in (start, start + span)))


# The pairs (expert, k) of one rank, and the number on all ranks.
Draw = tuple[list[tuple[int, int]], int]


class _SegmentSet:
    def __init__(self, trajectories: Sequence[Trajectory], vector: Vector, span: int) -> None:
        self.trajectories, self.vector, self.span = trajectories, vector, span

    def __getitem__(self, draw: Draw) -> SegmentBatch:
        pairs, total = draw
        segments = [
            read_segment(self.trajectories[expert], self.vector, start=start, span=self.span)
            for expert, start in pairs
        ]
        return SegmentBatch(segments, total)


class SegmentSampler(Sampler[Draw]):
    """For each step of an epoch, the rank's pairs (expert, k), and the pairs on all ranks."""

    def __init__(
        self,
        *,
        experts: int,
        starts: range,
        per_step: int,
        steps: int,
        seed: int,
        rank: int,
        ranks: int,
    ) -> None:
        self.experts, self.starts = experts, starts
        self.per_step, self.steps, self.seed = per_step, steps, seed
        self.rank, self.ranks = rank, ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Draw]:
        for step in range(self.epoch * self.steps, (self.epoch + 1) * self.steps):
            generator = stream(self.seed, step)
            draws = torch.randint(
                self.experts * len(self.starts), (self.per_step,), generator=generator
            ).tolist()
            pairs = [(d // len(self.starts), self.starts[d % len(self.starts)]) for d in draws]
            yield pairs[self.rank :: self.ranks], self.per_step
