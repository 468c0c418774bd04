"""The time of a stage over several starts."""

import time

from cwx.training.callbacks.elapsed_time import ElapsedTime


def test_the_time_of_earlier_starts_is_added_and_lost_work_is_not_counted_twice(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first = ElapsedTime()
    now = 130.0
    checkpoint = first.state_dict()
    # Work without a checkpoint, then a restart an hour later.
    now = 140.0
    assert first.seconds == 40
    now = 4000.0
    second = ElapsedTime()
    now = 4002.0
    second.load_state_dict(checkpoint)
    now = 4005.0
    assert second.seconds == 35
