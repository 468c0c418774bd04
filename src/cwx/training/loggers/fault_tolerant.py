"""A logger whose errors do not stop a study."""

import logging
from argparse import Namespace
from functools import partial
from typing import Any

from lightning.pytorch.loggers import Logger

log = logging.getLogger(__name__)


class FaultTolerantLogger(Logger):
    """Wraps a logger, and stops calling it after its first error: the study goes on without it.

    It has the methods of the wrapped logger (``log_image``, …), and no others.

    Args:
        logger: the wrapped logger.
        label: its name in the warning.
    """

    def __init__(self, logger: Any, label: str) -> None:
        super().__init__()
        self._logger, self._label = logger, label
        self._failed = self._warned = False

    def attempt(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the wrapped logger; returns ``None`` after an error."""
        if self._failed:
            return None
        try:
            return getattr(self._logger, method)(*args, **kwargs)
        except Exception as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        if not self._warned:
            line = "logger %s failed; the run continues without it: %s: %s"
            log.warning(line, self._label, type(error).__name__, error)
        self._failed = self._warned = True

    def __getattr__(self, name: str) -> Any:
        # Own attributes that are not set yet must not reach the wrapped logger.
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            attribute = getattr(self._logger, name)
        except AttributeError:
            raise
        except Exception as error:
            # A property may raise any error.
            self._give_up(error)
            raise AttributeError(name) from error
        return partial(self.attempt, name) if callable(attribute) else attribute

    @property
    def name(self) -> str | None:
        return str(self._label)

    @property
    def version(self) -> str | int | None:
        # Lightning uses the version only in folder names, which a study does not need.
        return None

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        self.attempt("log_hyperparams", params, *args, **kwargs)

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
        """Close the wrapped logger, also after an error, so that the next run can start its own.

        Args:
            exit_code: 0 if the study finished, as the exit code of a process.
            reason: why the study did not finish.
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
