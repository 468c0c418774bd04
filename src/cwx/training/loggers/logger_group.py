"""Starting, calling and closing the loggers of one study."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cwx.training.loggers.fault_tolerant import FaultTolerantLogger

log = logging.getLogger(__name__)

# The exit code that W&B uses for a run stopped by Ctrl-C.
_INTERRUPTED = 255


class LoggerGroup:
    """All started loggers. An error in one of them does not stop the study."""

    def __init__(self) -> None:
        self.loggers: list[FaultTolerantLogger] = []

    @contextmanager
    def run(
        self,
        factories: Mapping[str, Callable[..., Any]],
        folder: Path,
        configuration: Mapping[str, Any],
    ) -> Iterator[None]:
        """Start the loggers; close them when the study ends, with or without an error."""
        self._start(factories, folder, configuration)
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self._finish(_INTERRUPTED, "stopped from outside")
            raise
        except BaseException as error:
            self.fail(error)
            raise
        self._finish(0, None)

    def fail(self, error: BaseException) -> None:
        """Close the loggers with an error."""
        self._finish(1, f"{type(error).__name__}: {error}")

    def _start(
        self,
        factories: Mapping[str, Callable[..., Any]],
        folder: Path,
        configuration: Mapping[str, Any],
    ) -> None:
        for name, build in factories.items():
            try:
                logger = FaultTolerantLogger(build(save_dir=str(folder)), name)
            except Exception as error:
                log.warning(
                    "logger %s could not start; the run continues without it: %s", name, error
                )
            else:
                self.loggers.append(logger)
                logger.log_hyperparams(dict(configuration))

    def add_results(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """Send the results of a study to every logger.

        A logger with ``log_results`` gets the folder and the metrics, any other logger the metrics,
        and the figures if it has ``log_image``.

        Args:
            folder: the run directory.
            metrics: all metrics.
        """
        for logger in self.loggers:
            if hasattr(logger, "log_results"):
                logger.log_results(folder, metrics)
            else:
                logger.log_metrics(dict(metrics))
                if hasattr(logger, "log_image"):
                    for figure in sorted(folder.glob("figures/*.png")):
                        logger.log_image(key=f"figures/{figure.stem}", images=[str(figure)])
            logger.save()

    def _finish(self, exit_code: int, reason: str | None) -> None:
        for logger in self.loggers:
            logger.finish(exit_code, reason)
        self.loggers.clear()
