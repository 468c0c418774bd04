"""The end of a run whose main thread waits for a rank that has failed."""

import json
import logging
import threading

from cwx.study.page import fail_in_thread
from cwx.study.results import Results
from cwx.training.loggers.logger_group import LoggerGroup


class Closed:
    """A logger that records how it was closed."""

    def __init__(self, waits=None):
        self.ends, self.waits = [], waits

    def finish(self, exit_code, reason):
        self.ends.append((exit_code, reason))
        if self.waits is not None:
            self.waits.wait(60)


def failed(folder, logger):
    """The status of a run that `fail_in_thread` ends."""
    results, loggers = Results(folder), LoggerGroup()
    loggers.loggers.append(logger)
    with results.running(experiment="x", resumed=False):
        fail_in_thread(results, loggers, OSError("the image 17.png is damaged"))
        return json.loads((folder / "status.json").read_text())


def test_the_error_of_another_rank_is_recorded_and_shown(tmp_path, caplog):
    logger = Closed()
    with caplog.at_level(logging.INFO, "cwx"):
        status = failed(tmp_path / "run", logger)
    assert (status["state"], status["reason"]) == (
        "failed",
        "OSError: the image 17.png is damaged",
    )
    assert "the image 17.png is damaged" in caplog.messages
    assert logger.ends == [(1, status["reason"])]
    assert "the image 17.png is damaged" in (tmp_path / "run" / "report.html").read_text()


def test_a_logger_that_waits_does_not_keep_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("cwx.study.page._CLOSING", 0.1)
    ends = threading.Event()
    logger = Closed(waits=ends)
    try:
        assert failed(tmp_path / "run", logger)["state"] == "failed"
        assert logger.ends
    finally:
        ends.set()
