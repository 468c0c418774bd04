"""The page that a study leaves, however it ends."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cwx.report.run_page import write_page
from cwx.study.results import Results

log = logging.getLogger(__name__)


@contextmanager
def paged(results: Results) -> Iterator[None]:
    """Leave a run's page when the run ends, however it ends, and say where it is.

    What goes wrong with the page is logged, and changes neither how the run ended nor its error.
    Nothing is written of a run that could not begin.
    """
    try:
        yield
    finally:
        if results.ended:
            _leave(results.folder)


def _leave(folder: Path) -> None:
    try:
        log.info("the page is %s", write_page(folder))
    # An interruption, too: it is the page that is given up.
    except BaseException:
        line = "the page could not be written; try again with: cwx report %s"
        log.warning(line, folder, exc_info=True)
