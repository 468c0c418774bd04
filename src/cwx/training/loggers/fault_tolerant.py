"""A logger that cannot end a study."""

import logging
from argparse import Namespace
from functools import partial
from typing import Any

from lightning.pytorch.loggers import Logger

log = logging.getLogger(__name__)


class Guarded(Logger):
    """Another logger, which is left alone once it has failed: that costs its record, no more.

    It takes whatever the other takes (``log_image``, …), and has no attribute that it lacks.

    Args:
        logger: the other.
        label: its name in the warning.
    """

    def __init__(self, logger: Any, label: str) -> None:
        super().__init__()
        self._logger, self._label = logger, label
        self._failed = self._told = False

    def attempt(self, call: str, *given: Any, **named: Any) -> Any:
        """What the other answers; ``None`` once it has failed."""
        if self._failed:
            return None
        try:
            return getattr(self._logger, call)(*given, **named)
        except Exception as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        if not self._told:
            line = "%s fails, and this run goes on without it: %s: %s"
            log.warning(line, self._label, type(error).__name__, error)
        self._failed = self._told = True

    def __getattr__(self, name: str) -> Any:
        # Not for what is missing here because it is not set yet.
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            found = getattr(self._logger, name)
        except AttributeError:
            raise
        except Exception as error:
            # As a property may do.
            self._give_up(error)
            raise AttributeError(name) from error
        return partial(self.attempt, name) if callable(found) else found

    @property
    def name(self) -> str | None:
        return str(self._label)

    @property
    def version(self) -> str | int | None:
        # Lightning asks for it only to name folders, which studies do themselves.
        return None

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *given: Any, **named: Any
    ) -> None:
        self.attempt("log_hyperparams", params, *given, **named)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.attempt("log_metrics", metrics, step)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        self.attempt("log_graph", model, input_array)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self.attempt("after_save_checkpoint", checkpoint_callback)

    def save(self) -> None:
        self.attempt("save")

    def finalize(self, status: str) -> None:
        self.attempt("finalize", status)

    def finish(self, exit_code: int, reason: str | None) -> None:
        """Close the other, also if it has failed: the next run in this process starts its own.

        Args:
            exit_code: as of a process, 0 if the study went to its end.
            reason: why it did not.
        """
        failed, self._failed = self._failed, False
        if hasattr(type(self._logger), "finish"):
            self.attempt("finish", exit_code, reason)
        else:
            self._end_experiment()
        self._failed |= failed

    def _end_experiment(self) -> None:
        try:
            end = getattr(self._logger.experiment, "finish", None)
            if callable(end):
                end()
        except Exception as error:
            self._give_up(error)
