"""The loggers of one study, from its start to its end."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cwx.training.loggers.fault_tolerant import Guarded

log = logging.getLogger(__name__)

# As a process says that Ctrl-C ended it, and W&B too.
_INTERRUPTED = 255


class Records:
    """Every logger that has started; one that fails costs its record, not the study."""

    def __init__(self) -> None:
        self.loggers: list[Guarded] = []

    @contextmanager
    def kept(
        self,
        factories: Mapping[str, Callable[..., Any]],
        folder: Path,
        configuration: Mapping[str, Any],
    ) -> Iterator[None]:
        """Start the loggers, and close them however the study ends."""
        self._start(factories, folder, configuration)
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self._finish(_INTERRUPTED, "stopped from outside")
            raise
        except BaseException as error:
            self._finish(1, f"{type(error).__name__}: {error}")
            raise
        self._finish(0, None)

    def _start(
        self,
        factories: Mapping[str, Callable[..., Any]],
        folder: Path,
        configuration: Mapping[str, Any],
    ) -> None:
        for name, build in factories.items():
            try:
                logger = Guarded(build(save_dir=str(folder)), name)
            except Exception as error:
                log.warning("%s does not start, and this run goes without it: %s", name, error)
            else:
                self.loggers.append(logger)
                logger.log_hyperparams(dict(configuration))

    def add_results(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """Send every logger what it takes of a study's results.

        Args:
            folder: where they are.
            metrics: all that was measured.
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
