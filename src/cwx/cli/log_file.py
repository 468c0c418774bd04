"""The log file of a run, which a full disk does not turn into a traceback for each line."""

import logging
import sys


class LogFile(logging.FileHandler):
    """Writes lines to a file; after the first line that fails, the file gets no further lines."""

    _is_lost = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_lost:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._is_lost = True
        sys.stderr.write(f"{self.baseFilename} gets no further lines: {error.strerror or error}\n")

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            # The buffer of a full disk.
            self._is_lost = True
