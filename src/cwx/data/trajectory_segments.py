"""Random segments (θ_k, θ_{k+N}) of expert trajectories, read from disk step by step.

Files are memory-mapped, and only the segments of the current and the next step are held. Main
memory therefore does not depend on the number of experts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import Sampler

from cwx.data.step_loaders import rank_and_world_size
from cwx.functional.rng import stream
from cwx.storage.trajectories import Trajectory, format_epochs

# Flattens a state, by parameter name, into one parameter vector [P].
Vector = Callable[[Mapping[str, Tensor]], Tensor]


class Segment(NamedTuple):
    """θ_k and θ_{k+N}, each a vector ``[P]``."""

    start: Tensor
    target: Tensor


class SegmentBatch(NamedTuple):
    """One rank's segments of a step, and the number of segments on all ranks."""

    segments: list[Segment]
    total: int


class Segments(L.LightningDataModule):
    """A data module of segments, drawn uniformly over experts and start epochs.

    Args:
        trajectories: of one network.
        vector: flattens a state into one parameter vector.
        span: N, in epochs.
        start_min, start_max: the range of k, both ends included.
        per_step: segments per step, over all ranks.
        epoch_steps: steps per epoch.
        seed: with the step number, it determines the segments of a step.

    Raises:
        ValueError: the range is empty or exceeds the recorded epochs.
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

    def train_dataloader(self) -> "PrefetchLoader":
        rank, ranks = rank_and_world_size(self)
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
        return PrefetchLoader(self.dataset, sampler, pin=pin)


class PrefetchLoader:
    """Loads the next step's batch while the current step computes.

    One thread is enough, and needs no copies between processes: reading a file releases the
    interpreter lock.

    Args:
        dataset: reads the batch for a draw of `sampler`.
        sampler: draws the segments; Lightning sets its epoch.
        pin: whether batches are pinned in page-locked memory, for faster copies to a GPU.
    """

    def __init__(self, dataset: "_SegmentSet", sampler: "SegmentSampler", *, pin: bool) -> None:
        self.dataset, self.sampler, self.pin = dataset, sampler, pin

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[SegmentBatch]:
        draws = iter(self.sampler)
        with ThreadPoolExecutor(1) as reader:
            pending = reader.submit(self._load, next(draws, None))
            while (batch := pending.result()) is not None:
                pending = reader.submit(self._load, next(draws, None))
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
    """Check that every trajectory has all segments in the range.

    Raises:
        ValueError: the range is invalid, or a needed epoch was not recorded; names the remedy.
    """
    if span < 1:
        raise ValueError(f"a segment spans {span} epochs: give 1 or more")
    if not 0 <= start_min <= start_max:
        raise ValueError(
            f"segments start in epochs {start_min} to {start_max}: give 0 <= start_min <= start_max"
        )
    last = min(trajectory.epochs for trajectory in trajectories)
    if start_max + span > last:
        raise ValueError(
            f"segment [{start_max}, {start_max + span}] exceeds the {last} recorded epochs: "
            f"lower start_max to {last - span} or record more (recipe.epochs)"
        )
    for start, trajectory in product(range(start_min, start_max + 1), trajectories):
        if missing := [k for k in (start, start + span) if k not in trajectory.recorded_epochs]:
            lower = f"lower start_max to {start - 1}" if start > start_min else "start elsewhere"
            raise ValueError(
                f"segment [{start}, {start + span}] needs epoch {missing[0]}, which is not among "
                f"those recorded in {trajectory.path} "
                f"({format_epochs(trajectory.recorded_epochs)}): raise "
                f"recipe.recording.epochs to {start_max + span} or {lower}"
            )


def read_segment(trajectory: Trajectory, vector: Vector, *, start: int, span: int) -> Segment:
    """θ_start and θ_{start+span} of one expert.

    Raises:
        ValueError: an epoch was not recorded, or its file is damaged or missing.
    """
    return Segment(*(vector(trajectory.state(epoch)) for epoch in (start, start + span)))


# One rank's pairs (expert, k) of a step, and the number of pairs on all ranks.
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
    """Draws, for each step of an epoch, the rank's pairs (expert, k)."""

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
