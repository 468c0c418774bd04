"""Fitting one LightningModule after another within a study, alone or on several ranks."""

import hashlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cwx.data.step_loaders import Turns
from cwx.storage.shards import Shards
from cwx.storage.trajectories import Identity, Recorder, Trajectory, TrajectoryStore
from cwx.training.callbacks.checkpoints import AtomicCheckpointIO, every_epoch, fit
from cwx.training.callbacks.progress import ProgressLines
from cwx.training.callbacks.recording import RecordStates, WriteShards
from cwx.training.loggers.logger_group import Records
from cwx.training.precision import Precision, Precisions

log = logging.getLogger(__name__)

Factory = Callable[..., Any]
Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """An expert that a study needs.

    Attributes:
        stage: its name in logs.
        seed: of its weights and its training.
        identity: what it is known by in the store.
    """

    stage: str
    seed: int
    identity: Identity


@runtime_checkable
class Fitted(Protocol):
    """A method that takes fitting: a LightningModule that brings its batches.

    One without only has to be asked for its explanations.

    Attributes:
        epochs: how often it goes through them.
        batches: a LightningDataModule.
    """

    epochs: int
    batches: Any


class Stages:
    """Fits one module after another, the same way on every rank.

    Args:
        trainer: builds a Trainer.
        precision: of computing, while experts train and while methods run.

    Attributes:
        records: the loggers that every stage writes to.
    """

    def __init__(self, trainer: Factory, precision: Precisions) -> None:
        self._trainer, self._precision = trainer, precision
        self.records = Records()
        self._last = self._build(epochs=1, callbacks=[], precision=precision.methods)

    def _build(
        self, *, epochs: int, callbacks: Sequence[Any], precision: Precision, **settings: Any
    ) -> Any:
        terminal = sys.stderr.isatty()
        return self._trainer(
            max_epochs=epochs,
            precision=precision.trainer,
            enable_progress_bar=terminal,
            callbacks=[*([] if terminal else [ProgressLines(seconds=10)]), *callbacks],
            plugins=[AtomicCheckpointIO()],
            logger=list(self.records.loggers),
            **settings,
        )

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self._last.is_global_zero)

    @property
    def device(self) -> Any:
        """Where this process computes, a `torch.device`."""
        return self._last.strategy.root_device

    def fit(self, module: Any, checkpoint: Path, callbacks: Sequence[Any]) -> None:
        """Fit a method to its end, from `checkpoint` if there is one."""
        self._fit(module, checkpoint, callbacks, self._precision.methods)

    def _fit(
        self, module: Any, checkpoint: Path, callbacks: Sequence[Any], precision: Precision
    ) -> None:
        self._last = self._build(
            epochs=module.epochs,
            callbacks=[*callbacks, every_epoch(checkpoint)],
            precision=precision,
        )
        with precision.in_force():
            fit(self._last, module, checkpoint)

    def wait(self) -> None:
        """Wait until every rank is here."""
        self._last.strategy.barrier()

    def train(
        self,
        build: Callable[[Sequence[Wanted]], Any],
        wanted: Sequence[Wanted],
        store: TrajectoryStore,
        *,
        at_once: int,
    ) -> list[Trajectory]:
        """The experts wanted, in order; those that the store lacks are trained first.

        Args:
            build: makes the module that trains some of them side by side.
            at_once: how many at most.
        """
        # What is wanted twice is trained once: the store would wait for itself.
        once = list({store.path(expert.identity): expert for expert in wanted}.values())
        for first in range(0, len(once), at_once):
            self._train_together(build, once[first : first + at_once], store)
        return [Trajectory(store.path(expert.identity)) for expert in wanted]

    def _train_together(
        self,
        build: Callable[[Sequence[Wanted]], Any],
        wanted: Sequence[Wanted],
        store: TrajectoryStore,
    ) -> None:
        with ExitStack() as locks:
            if self.leads:
                # In one order everywhere, so that no two jobs wait for each other.
                for expert in sorted(wanted, key=lambda expert: store.path(expert.identity)):
                    waiting = f"another job trains {expert.stage}: waiting for it"
                    locks.enter_context(store.lock(expert.identity, waiting))
            # Rank 0 decides: under its locks the answer cannot change any more.
            missing: list[Wanted] = self._last.strategy.broadcast(
                [expert for expert in wanted if store.find(expert.identity) is None]
            )
            if missing:
                self._train_missing(build(missing), missing, store)

    def _train_missing(self, module: Any, missing: list[Wanted], store: TrajectoryStore) -> None:
        names = ", ".join(expert.stage for expert in missing)
        log.info("training what is not in the store: %s", names)
        paths = [store.path(expert.identity) for expert in missing]
        # The same experts together, and no others, can continue from it.
        together = hashlib.sha256(repr(sorted(map(str, paths))).encode()).hexdigest()[:8]
        checkpoint = paths[0] / f"checkpoint-{together}.ckpt"
        recorders = [
            Recorder(path, expert.identity) for path, expert in zip(paths, missing, strict=True)
        ]
        self._fit(module, checkpoint, [RecordStates(recorders)], self._precision.experts)
        if self.leads:
            checkpoint.unlink(missing_ok=True)
        self.wait()

    def make(
        self,
        build: Callable[[], Any],
        shards: Shards,
        identity: Identity,
        store: TrajectoryStore,
    ) -> None:
        """Write the batches that `shards` lack; each rank makes its share of them.

        Args:
            build: makes the module whose `predict_step` makes a batch from its number.
            shards: in the folder that `store` has for `identity`.
        """
        with ExitStack() as locks:
            if self.leads:
                waiting = f"another job makes {shards.folder}: waiting for it"
                locks.enter_context(store.lock(identity, waiting))
            # As for experts: under its lock, rank 0 decides.
            missing: list[int] = self._last.strategy.broadcast(shards.missing())
            if missing:
                self._make_missing(build(), shards, identity, missing)
            if self.leads:
                shards.complete()
            self.wait()

    def _make_missing(
        self, module: Any, shards: Shards, identity: Identity, missing: list[int]
    ) -> None:
        line = "making %s: %d of %d batches are not in the store"
        log.info(line, module.stage, len(missing), len(shards))
        if self.leads:
            shards.start(identity)
        self._last = self._build(
            epochs=1,
            callbacks=[WriteShards(shards)],
            precision=self._precision.methods,
            # Attacks need gradients.
            inference_mode=False,
            enable_checkpointing=False,
        )
        with self._precision.methods.in_force():
            self._last.predict(module, datamodule=Turns(missing), return_predictions=False)
        self.wait()
