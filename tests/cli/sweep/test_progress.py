"""The remaining time of a sweep, and its table."""

import pytest

from cwx.cli.sweep.progress import main_metrics, remaining_seconds, table
from cwx.storage.sweeps import Job


@pytest.mark.parametrize(
    ("durations", "running", "waiting", "at_once", "expected"),
    [
        ([], [3.0], 4, 1, None),
        ([10.0], [], 0, 1, 0.0),
        ([10.0, 20.0], [], 3, 1, 45.0),
        ([10.0], [4.0], 0, 2, 6.0),
        ([10.0], [4.0], 1, 2, 10.0),
        ([10.0], [4.0], 2, 2, 16.0),
        ([10.0], [40.0], 1, 1, 10.0),
    ],
)
def test_the_remaining_time_fills_free_slots_first(durations, running, waiting, at_once, expected):
    assert (
        remaining_seconds(durations, running=running, waiting=waiting, at_once=at_once) == expected
    )


def test_the_table_has_one_metric_of_each_evaluation():
    metrics = [
        {"corruption/rate": 0.1, "gallery/range/a/min": -3.0, "f/a": 1.0, "f/b": 2.0, "g/a": 3.0},
        {"h": 1.0},
    ]
    assert main_metrics(metrics, wanted=[]) == ["f/a", "g/a", "h"]
    assert main_metrics(metrics, wanted=["f/b", "unknown"]) == ["f/b", "g/a", "h"]
    fidelity = [{"fidelity/matched": 1.0, "fidelity/ratio": 0.5}]
    assert main_metrics(fidelity, wanted=[]) == ["fidelity/ratio"]
    many = [{f"n{i}/x": 0.0 for i in range(9)}]
    assert main_metrics(many, wanted=[]) == ["n0/x", "n1/x", "n2/x", "n3/x"]


def test_the_table_has_a_line_per_job_and_a_column_per_swept_setting(tmp_path):
    jobs = [
        Job(0, tmp_path / "0", (), {"seed": "0"}, "a", "finished", None, 61.0),
        Job(1, tmp_path / "1", (), {"seed": "1", "lr": "0.1"}, "a", "not started"),
    ]
    jobs[0].folder.mkdir()
    (jobs[0].folder / "metrics.json").write_text('{"f/a": 0.123456, "g": null}')
    assert table(jobs, wanted=[]).split("\n") == [
        "job  seed  lr   state        time       f/a     g",
        "0    0          finished     1 min 1 s  0.1235  nan",
        "1    1     0.1  not started",
    ]
