"""Fitting one LightningModule after another within a study, alone or on several ranks."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cwx.callbacks.checkpoints import AtomicCheckpointIO, every_epoch, fit
from cwx.callbacks.progress import ProgressLines
from cwx.callbacks.recording import RecordStates
from cwx.trajectories import Identity, Recorder, Trajectory, TrajectoryStore

log = logging.getLogger(__name__)

Factory = Callable[..., Any]
Configuration = Mapping[str, Any]


class Stages:
    """Fits one module after another, the same way on every rank."""

    def __init__(self, trainer: Factory) -> None:
        self._trainer = trainer
        self._loggers: list[Any] = []
        self._last = self._build(epochs=1, callbacks=[])

    def _build(self, *, epochs: int, callbacks: Sequence[Any]) -> Any:
        terminal = sys.stderr.isatty()
        return self._trainer(
            max_epochs=epochs,
            enable_progress_bar=terminal,
            callbacks=[*([] if terminal else [ProgressLines(seconds=10)]), *callbacks],
            plugins=[AtomicCheckpointIO()],
            logger=list(self._loggers),
        )

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self._last.is_global_zero)

    def fit(self, module: Any, checkpoint: Path, callbacks: Sequence[Any]) -> None:
        """Fit `module` to its end, from `checkpoint` if there is one."""
        self._last = self._build(
            epochs=module.epochs,
            callbacks=[*callbacks, every_epoch(checkpoint)],
        )
        fit(self._last, module, checkpoint)

    def wait(self) -> None:
        """Wait until every rank is here."""
        self._last.strategy.barrier()

    def train(
        self, build: Callable[[], Any], identity: Identity, store: TrajectoryStore
    ) -> Trajectory:
        """The expert of that identity, trained first if the store lacks it."""
        if not self.leads:
            return self._train_unless_there(build, identity, store)
        waiting = f"another job trains {store.path(identity).name}: waiting for it"
        with store.lock(identity, waiting):
            return self._train_unless_there(build, identity, store)

    def _train_unless_there(
        self, build: Callable[[], Any], identity: Identity, store: TrajectoryStore
    ) -> Trajectory:
        # Rank 0 decides: under its lock the answer cannot change any more.
        found: Trajectory | None = self._last.strategy.broadcast(store.find(identity))
        if found is not None:
            return found
        module = build()
        path = store.path(identity)
        checkpoint = path / "checkpoint.ckpt"
        log.info("%s is not in the store: training it", module.stage)
        self.fit(module, checkpoint, [RecordStates(Recorder(path, identity))])
        if self.leads:
            checkpoint.unlink(missing_ok=True)
        self.wait()
        return Trajectory(path)

    def log_to(
        self,
        factories: Mapping[str, Factory],
        folder: Path,
        configuration: Configuration,
    ) -> None:
        """Start the loggers; one that fails costs its record, not the study."""
        for name, build in factories.items():
            try:
                logger = build(save_dir=str(folder))
                logger.log_hyperparams(configuration)
            except Exception as error:
                log.warning("%s does not start, and this run goes without it: %s", name, error)
            else:
                self._loggers.append(logger)

    def log(self, numbers: Mapping[str, float], figures: Sequence[Path]) -> None:
        """Send what was measured to every logger."""
        for logger in self._loggers:
            logger.log_metrics(numbers)
            if hasattr(logger, "log_image"):
                for figure in figures:
                    logger.log_image(key=f"figures/{figure.stem}", images=[str(figure)])
            logger.save()

    def finish_logs(self) -> None:
        """Close every logger, so that the next run in this process starts its own."""
        for logger in self._loggers:
            if hasattr(logger.experiment, "finish"):
                logger.experiment.finish()
