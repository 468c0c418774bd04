"""Writing the report page when a study ends, with or without an error."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cwx.report.run_page import write_page
from cwx.study.results import Results
from cwx.training.loggers.logger_group import LoggerGroup
from cwx.training.rank_failures import LostRankError

log = logging.getLogger(__name__)

# Seconds that loggers have to send their last lines.
_CLOSING = 60.0


@contextmanager
def page_on_exit(results: Results) -> Iterator[None]:
    """Write the page of a run when the run ends, with or without an error, and log its path.

    An error while the page is written is logged; the status and the error of the run stay the
    same. No page is written if the run could not start.
    """
    try:
        yield
    finally:
        if results.ended:
            _write(results.folder)


def fail_in_thread(results: Results, loggers: LoggerGroup, error: Exception) -> None:
    """Log an error of another rank, record it as the end of the run, and write the page.

    Called beside the main thread, which waits for that rank and raises nothing.
    """
    if isinstance(error, LostRankError):
        end_with_lost_rank(results, loggers, str(error))
        return
    log.error("%s", error)
    results.fail(error)
    _close(results, loggers, error)


def end_with_lost_rank(results: Results, loggers: LoggerGroup, reason: str) -> None:
    """As `fail_in_thread`, where another rank was killed."""
    log.error("%s; all others are stopped: continue with resume=%s", reason, results.folder)
    results.record_failure("failed", reason, "")
    _close(results, loggers, RuntimeError(reason))


def _close(results: Results, loggers: LoggerGroup, error: Exception) -> None:
    if results.ended:
        _write(results.folder)
    # A logger may wait for its server, or for the main thread.
    closing = threading.Thread(target=loggers.fail, args=(error,), daemon=True)
    closing.start()
    closing.join(_CLOSING)


def _write(folder: Path) -> None:
    try:
        log.info("the page is %s", write_page(folder))
    # Also on an interruption: only the page is given up.
    except BaseException:
        line = "the page could not be written; try again with: cwx report %s"
        log.warning(line, folder, exc_info=True)
