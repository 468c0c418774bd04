"""Sweeps of small commands: which jobs are started, resumed or skipped, and what is logged."""

import json
import logging
import sys
import threading
import time

import pytest

from cwx.cli.sweep import resources
from cwx.cli.sweep.launch import Launch, Settings
from cwx.storage.locks import writing
from cwx.storage.run_status import objective
from cwx.storage.sweeps import Job, Sweep, read_jobs, read_sweep

# An artificial run: its files and its end depend on the words after its folder.
RUN = """
import json, os, pathlib, signal, sys
folder, *words = pathlib.Path(sys.argv[1]), *sys.argv[2:]
say = lambda state, why: (folder / "status.json").write_text(
    json.dumps({"state": state, "reason": why, "seconds": 2.0, "started": "then"}))
(folder / ".hydra").mkdir(parents=True, exist_ok=True)
(folder / ".hydra/overrides.yaml").write_text("[]")
with (folder / "calls").open("a") as calls:
    calls.write(" ".join(words) + chr(10))
way = words[-1]
if way == "mute":
    raise SystemExit(1)
if way == "says":
    print("x" * 20000)
    sys.exit("cwx: no such thing")
say("running", None)
if way == "cut":
    os.kill(os.getpid(), signal.SIGKILL)
if way == "early":
    raise SystemExit(0)
if way == "fails":
    say("failed", "ValueError: bad")
    raise SystemExit(1)
(folder / "metrics.json").write_text(json.dumps({"a/x": 0.5, "a/y": 1, "b": None}))
say("finished", None)
if way == "trips":
    sys.exit("cwx: no page")
"""


class Commands:
    def __init__(self, ways):
        self.ways = ways

    def start_command(self, job):
        return [sys.executable, "-c", RUN, str(job.folder), "begin", self.ways[job.number]]

    def resume_command(self, job):
        return [sys.executable, "-c", RUN, str(job.folder), "go_on", self.ways[job.number]]


SETTINGS = {"n_jobs": 2, "gpus_per_job": None, "fail_fast": False, "grace": 20.0, "resume": False}


def launch(folder, *ways, check_unchanged=id, optimize=None, **settings):
    sweep = Sweep(folder, overrides=["seed=0,1", "x=2"], hydra=[], command="python run.py")
    jobs = [
        Job(number, folder / str(number), (f"seed={number}", "x=2"), {"seed": str(number)}, "mine")
        for number, _ in enumerate(ways)
    ]
    chosen = Settings(**{**SETTINGS, **settings})
    Launch(sweep, chosen, Commands(ways), optimize=optimize, check_unchanged=check_unchanged).run(
        jobs
    )
    return jobs


def calls(job):
    return (job.folder / "calls").read_text().split("\n")[:-1]


ENDS = {
    "well": ("finished", None),
    "fails": ("failed", "ValueError: bad"),
    "mute": ("failed", "its process ended with code 1 without output"),
    "says": ("failed", "no such thing"),
    "cut": ("failed", "its process was killed by SIGKILL, as the system does when memory runs out"),
    "early": ("failed", "its process ended before the run finished"),
    "trips": ("failed", "no page"),
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return folder, launch(folder, *ENDS)


def test_each_job_has_a_state_even_without_a_message(swept):
    _, jobs = swept
    for job, (state, reason) in zip(jobs, ENDS.values(), strict=True):
        status = json.loads((job.folder / "status.json").read_text())
        assert (job.state, job.reason) == (status["state"], status["reason"]) == (state, reason)
        assert job.output.exists()
    assert jobs[2].status()["experiment"] == "mine"
    # The run's own status entries stay.
    assert jobs[4].status()["started"] == "then"


def test_a_sweep_is_read_from_its_folder(swept):
    folder, jobs = swept
    saved = read_sweep(folder)
    assert saved["overrides"] == ["seed=0,1", "x=2"]
    assert saved["command"] == "python run.py"
    assert read_jobs(folder) == jobs
    header, first, second, *_ = (folder / "jobs.csv").read_text().split("\n")
    assert header == "job,seed,state,seconds,reason,a/x,a/y,b"
    assert first == "0,0,finished,2.0,,0.5,1,"
    assert second == "1,1,failed,2.0,ValueError: bad,,,"


def test_finished_jobs_are_skipped_and_others_resumed_or_started(swept, caplog):
    folder, _ = swept
    caplog.set_level(logging.INFO)
    checked = []
    ways = ["well"] * (len(ENDS) + 1)
    jobs = launch(
        folder, *ways, resume=True, check_unchanged=lambda job: checked.append(job.number)
    )
    assert {job.state for job in jobs} == {"finished"}
    last_calls = {name: calls(job)[-1] for name, job in zip([*ENDS, "new"], jobs, strict=True)}
    assert last_calls.pop("well") == "begin well"
    assert len(calls(jobs[0])) == 1
    assert last_calls.pop("new") == "begin well"
    assert set(last_calls.values()) == {"go_on well"}
    assert checked == list(range(len(ENDS)))
    assert "job 0 (seed=0) has finished already" in caplog.text
    assert "8 of 8 done" in caplog.text


def test_a_job_that_failed_before_its_run_starts_anew(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0/status.json").write_text('{"state": "failed", "reason": "no config"}')
    (job,) = launch(tmp_path, "well", resume=True)
    assert calls(job) == ["begin well"]


def test_a_new_failure_without_a_message_replaces_the_old_reason(tmp_path):
    launch(tmp_path, "fails")
    (job,) = launch(tmp_path, "mute", resume=True)
    assert job.reason == "its process ended with code 1 without output"
    assert job.seconds >= 2


def test_a_job_that_another_process_runs_is_awaited_and_not_started(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "0"
    held = threading.Event()

    def orphan():
        with writing(folder):
            held.set()
            while "still runs" not in caplog.text:
                time.sleep(0.02)
            (folder / ".hydra").mkdir()
            (folder / "status.json").write_text('{"state": "finished"}')

    thread = threading.Thread(target=orphan)
    thread.start()
    assert held.wait(20)
    (job,) = launch(tmp_path, "well", resume=True)
    thread.join()
    assert job.state == "finished"
    assert not (folder / "calls").exists()


def test_fail_fast_starts_no_job_after_a_failure(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    jobs = launch(tmp_path, "fails", "well", "well", n_jobs=1, fail_fast=True)
    assert [job.state for job in jobs] == ["failed", "not started", "not started"]
    assert not jobs[1].folder.exists()
    assert [job.state for job in read_jobs(tmp_path)] == ["failed", "not started", "not started"]
    assert "not started" in caplog.text.split("job  seed  state")[1]


def test_resources_are_divided_among_existing_jobs_only(tmp_path, monkeypatch):
    resources_of_jobs = []
    monkeypatch.setattr(resources, "cores", lambda: 8)
    monkeypatch.setattr(resources, "gpus", lambda _: list("0123"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def start(self, job, environment):
        resources_of_jobs.append(
            (environment["OMP_NUM_THREADS"], environment["CUDA_VISIBLE_DEVICES"])
        )
        raise KeyboardInterrupt

    monkeypatch.setattr(Launch, "_start", start)
    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path, "well", "well", n_jobs=16)
    assert resources_of_jobs == [("4", "0,1")]


def test_a_new_sweep_refuses_a_folder_with_runs(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1/status.json").write_text('{"state": "finished"}')
    with pytest.raises(ValueError, match="1 holds a run already: choose another hydra.sweep.dir"):
        launch(tmp_path, "well", "well")
    assert not (tmp_path / "0").exists()


def test_the_status_of_a_run_of_another_process_is_not_changed(tmp_path):
    job = Job(0, tmp_path, (), {}, "mine")
    (tmp_path / "status.json").write_text('{"state": "running"}')
    with writing(tmp_path):
        job.settle(1, seconds=1.0, stopped=False, before={})
    assert job.state == "failed"
    assert "another process is writing" in job.reason
    assert job.status() == {"state": "running"}


def test_a_killed_job_is_read_as_interrupted(tmp_path):
    launch(tmp_path, "well")
    (tmp_path / "0/status.json").write_text('{"state": "running"}')
    (job,) = read_jobs(tmp_path)
    assert (job.state, job.reason) == ("interrupted", "its process was killed")
    with writing(tmp_path / "0"):
        assert read_jobs(tmp_path)[0].state == "running"


def test_the_optimised_metric_is_shown_first_and_returned(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (job,) = launch(tmp_path, "well", optimize="a/y")
    assert "time  a/y  b" in caplog.text
    assert objective(job.folder, None) is None
    assert objective(job.folder, "a/x") == 0.5
    assert objective(job.folder, ["a/y", "a/x"]) == [1, 0.5]
    with pytest.raises(ValueError, match="optimize is 'b', which is not finite in .*max_failure"):
        objective(job.folder, ["a/y", "b"])
    with pytest.raises(ValueError, match="optimize is 'a/z'.*did you mean a/"):
        objective(job.folder, "a/z")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_jobs": 0}, "hydra.launcher.n_jobs is 0: give 1 or more"),
        ({"gpus_per_job": -1}, "hydra.launcher.gpus_per_job is -1"),
        ({"grace": -1.0}, "hydra.launcher.grace is -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{**SETTINGS, **setting})
