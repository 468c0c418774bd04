"""Fitting the LightningModules of a study one after another, on one or several ranks."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.fabric.utilities.exceptions import MisconfigurationException

from cwx.data.step_loaders import RoundRobinIndices
from cwx.storage.run_inputs import RunInputs
from cwx.storage.shards import Shards
from cwx.storage.store_entries import digest, remove_leftovers
from cwx.storage.trajectories import Identity, Recorder, Trajectory, TrajectoryStore
from cwx.training.callbacks.announce_errors import AnnounceErrors
from cwx.training.callbacks.checkpoints import (
    AtomicCheckpointIO,
    CheckpointWithinEpoch,
    every_epoch,
    fit,
)
from cwx.training.callbacks.data_wait import DataWait
from cwx.training.callbacks.lost_ranks import EndWithLostRank
from cwx.training.callbacks.progress import ProgressLines
from cwx.training.callbacks.recording import RecordStates, WriteShards
from cwx.training.callbacks.signals import KeepSignalHandler
from cwx.training.loggers.logger_group import LoggerGroup
from cwx.training.memory import memory_advice
from cwx.training.precision import Precision, Precisions

log = logging.getLogger(__name__)

# Errors of Lightning about the settings of a trainer.
_TRAINER_ERRORS = (
    MisconfigurationException,
    ImportError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)

Factory = Callable[..., Any]
Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class ExpertRequest:
    """An expert that a study needs.

    Attributes:
        stage: the name in logs.
        seed: of the weights and the training.
        identity: identifies the expert in the store.
    """

    stage: str
    seed: int
    identity: Identity


@runtime_checkable
class Fittable(Protocol):
    """A LightningModule of a method with its batches.

    A method without these attributes is not fitted; its `explanations()` are called directly.

    Attributes:
        epochs: the number of epochs.
        batches: the LightningDataModule to fit it on.
    """

    epochs: int
    batches: Any


class Stages:
    """Fits one module after another, with the same calls on every rank.

    Args:
        trainer: builds a Trainer.
        precision: the numerical precision for experts and for methods.
        checkpoint_minutes: the time between checkpoints within an epoch of the training of
            networks; ``None`` for checkpoints after each epoch only.

    Attributes:
        logger_group: the loggers that every stage writes to.
        inputs: records which networks and sets the run uses; ``None`` records nothing.
        on_lost_rank: receives the reason when a signal has killed a rank; this process then ends.
    """

    def __init__(
        self, trainer: Factory, precision: Precisions, *, checkpoint_minutes: float | None = None
    ) -> None:
        self._trainer, self._precision = trainer, precision
        self._checkpoint_minutes = checkpoint_minutes
        self.logger_group = LoggerGroup()
        self.inputs: RunInputs | None = None
        self._data_wait = DataWait()
        self.on_lost_rank: Callable[[str], None] = log.error
        self._ranks = EndWithLostRank(lambda reason: self.on_lost_rank(reason))
        self._last = self._build(epochs=1, callbacks=[], precision=precision.methods)

    def _build(
        self, *, epochs: int, callbacks: Sequence[Any], precision: Precision, **settings: Any
    ) -> Any:
        terminal = sys.stderr.isatty()
        always = [KeepSignalHandler(), AnnounceErrors(), self._ranks]
        progress = [] if terminal else [ProgressLines(seconds=10)]
        try:
            return self._trainer(
                max_epochs=epochs,
                precision=precision.trainer,
                # The data modules divide batches among ranks.
                use_distributed_sampler=False,
                enable_progress_bar=terminal,
                callbacks=[*always, *progress, *callbacks],
                plugins=[AtomicCheckpointIO()],
                logger=list(self.logger_group.loggers),
                **settings,
            )
        except _TRAINER_ERRORS as error:
            values = getattr(self._trainer, "keywords", {})
            devices = ", ".join(
                f"trainer.{name}={values[name]}"
                for name in ("accelerator", "devices", "strategy", "num_nodes")
                if name in values
            )
            raise ValueError(
                f"the trainer cannot be built on this machine with {devices} ({error}): correct "
                "the settings of trainer, or choose trainer=default"
            ) from error

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is rank 0, which writes files."""
        return bool(self._last.is_global_zero)

    @property
    def ranks(self) -> int:
        """The number of ranks."""
        return int(self._last.world_size)

    @property
    def device(self) -> Any:
        """The `torch.device` of this process."""
        return self._last.strategy.root_device

    def fit(self, module: Any, checkpoint: Path, callbacks: Sequence[Any]) -> None:
        """Fit a method, from `checkpoint` if it exists."""
        self._fit(module, checkpoint, callbacks, self._precision.methods)

    def _fit(
        self, module: Any, checkpoint: Path, callbacks: Sequence[Any], precision: Precision
    ) -> None:
        self._last = self._build(
            epochs=module.epochs,
            callbacks=[*callbacks, every_epoch(checkpoint)],
            precision=precision,
        )
        with precision.activate():
            fit(self._last, module, checkpoint)

    def wait(self) -> None:
        """Wait for all ranks."""
        self._last.strategy.barrier()

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every rank."""
        return self._last.strategy.broadcast(value)

    def train(
        self,
        build: Callable[[Sequence[ExpertRequest]], Any],
        requests: Sequence[ExpertRequest],
        store: TrajectoryStore,
        *,
        at_once: int,
    ) -> list[Trajectory]:
        """The requested experts, in order; those missing in the store are trained first.

        Args:
            build: builds the module that trains several experts in parallel.
            at_once: largest number of experts trained in parallel.
        """
        # Duplicates are trained once: the second lock would wait for the first.
        unique = list({store.path(expert.identity): expert for expert in requests}.values())
        if self.inputs is not None:
            for expert in requests:
                self.inputs.check_identity(expert.stage, expert.identity)
        for first in range(0, len(unique), at_once):
            self._train_in_parallel(build, unique[first : first + at_once], store)
        trajectories = [Trajectory(store.path(expert.identity)) for expert in requests]
        if self.inputs is not None:
            for expert, trajectory in zip(requests, trajectories, strict=True):
                self.inputs.check_entry(expert.stage, trajectory.path)
        return trajectories

    def _train_in_parallel(
        self,
        build: Callable[[Sequence[ExpertRequest]], Any],
        requests: Sequence[ExpertRequest],
        store: TrajectoryStore,
    ) -> None:
        with ExitStack() as locks:
            if self.is_rank_zero:
                # All jobs lock in the same order, which prevents deadlocks.
                for expert in sorted(requests, key=lambda expert: store.path(expert.identity)):
                    waiting = f"another job trains {expert.stage}: waiting for it"
                    locks.enter_context(store.lock(expert.identity, waiting))
            # Rank 0 decides: while it holds the locks, the store cannot change.
            missing: list[ExpertRequest] = self._last.strategy.broadcast(
                [expert for expert in requests if store.find(expert.identity) is None]
            )
            if missing:
                self._train_missing(build(missing), missing, store)

    def _train_missing(
        self, module: Any, missing: list[ExpertRequest], store: TrajectoryStore
    ) -> None:
        names = ", ".join(expert.stage for expert in missing)
        log.info("training (not in the store): %s", names)
        paths = [store.path(expert.identity) for expert in missing]
        # A checkpoint is valid only for the same group of experts in the same order.
        group = digest({"experts": [path.name for path in paths]})[:8]
        checkpoint = paths[0] / f"checkpoint-{group}.ckpt"
        recorders = [
            Recorder(path, expert.identity) for path, expert in zip(paths, missing, strict=True)
        ]
        callbacks: list[Any] = [RecordStates(recorders)]
        if self._checkpoint_minutes is not None:
            seconds = 60 * self._checkpoint_minutes
            callbacks.append(CheckpointWithinEpoch(checkpoint, seconds=seconds))
        callbacks.append(self._data_wait)
        with memory_advice(f"training {names}", lambda: _training_advice(len(missing))):
            self._fit(module, checkpoint, callbacks, self._precision.experts)
        if self.is_rank_zero:
            for path in paths:
                remove_leftovers(path)
        self.wait()

    def write_shards(
        self,
        build: Callable[[], Any],
        shards: Shards,
        identity: Identity,
        store: TrajectoryStore,
    ) -> None:
        """Make and write the missing batches of `shards`; each rank makes a part of them.

        Args:
            build: builds the module whose `predict_step` makes a batch from its number.
            shards: the set, in the folder of `identity` in `store`.
        """
        if self.inputs is not None:
            self.inputs.check_identity(str(next(iter(identity))), identity)
        with ExitStack() as locks:
            if self.is_rank_zero:
                waiting = f"another job makes {shards.folder}: waiting for it"
                locks.enter_context(store.lock(identity, waiting))
            # As for experts: rank 0 decides while it holds the lock.
            missing: list[int] = self._last.strategy.broadcast(shards.missing())
            if missing:
                self._write_missing(build(), shards, identity, missing)
            if self.is_rank_zero:
                shards.complete()
            self.wait()
        if self.inputs is not None:
            self.inputs.check_entry("images", shards.folder)

    def _write_missing(
        self, module: Any, shards: Shards, identity: Identity, missing: list[int]
    ) -> None:
        line = "making %s: %d of %d batches are not in the store"
        log.info(line, module.stage, len(missing), len(shards))
        if self.is_rank_zero:
            shards.start(identity)
        self._last = self._build(
            epochs=1,
            callbacks=[WriteShards(shards)],
            precision=self._precision.methods,
            # Attacks need gradients.
            inference_mode=False,
            enable_checkpointing=False,
        )
        with self._precision.methods.activate():
            self._last.predict(
                module, datamodule=RoundRobinIndices(missing), return_predictions=False
            )
        self.wait()


def _training_advice(count: int) -> str:
    smaller = "lower recipe.batch_size, which changes the networks, or choose a smaller network"
    if count == 1:
        return smaller
    return f"lower experts.at_once ({count} were trained in parallel), or {smaller}"
