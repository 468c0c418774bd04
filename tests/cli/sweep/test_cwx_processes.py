"""The launcher of sweeps in Hydra, with quick jobs that need no torch."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from cwx.cli.config.compose import sweep_directory
from cwx.cli.config.groups import configuration_folder
from cwx.cli.resolvers import register_resolvers
from cwx.storage.sweeps import Job
from hydra_plugins import cwx_processes
from hydra_plugins.cwx_processes import Processes

CONF = configuration_folder()
APP = """
import json, os, pathlib, sys, time
import hydra
from hydra.core.hydra_config import HydraConfig
from cwx.cli.sweep.processes import stop_with_launcher

if sys.argv[1] == "report":
    pathlib.Path(sys.argv[2], "report.html").touch()
    sys.exit()
stop_with_launcher()

@hydra.main(version_base="1.3", config_path="conf", config_name="run")
def main(config):
    folder = pathlib.Path(HydraConfig.get().runtime.output_dir)
    (folder / "environment.json").write_text(json.dumps(dict(os.environ)))
    if config.x == 2:
        sys.exit("cwx: two is bad")
    if config.x == 9:
        (folder / "sleeps").touch()
        time.sleep(60)
    square = None if config.x == 5 else config.x**2
    (folder / "metrics.json").write_text(json.dumps({"square": square}))
    (folder / "status.json").write_text('{"state": "finished", "seconds": 1.0}')

main()
"""
RUN = f"""
defaults:
  - _self_
  - override hydra/launcher: processes
x: 0
optimize: square
hydra:
  searchpath: ["file://{CONF}"]
  sweep:
    dir: out
    subdir: job-${{hydra.job.num}}
"""
FOREIGN = {"LOCAL_RANK": "1", "MASTER_PORT": "1", "WANDB_RUN_ID": "abc"}


def test_the_page_of_a_sweep_prints_into_the_log_alone(tmp_path, monkeypatch, capfd, caplog):
    code = "import sys; print('the page is there'); print('and an error', file=sys.stderr)"
    monkeypatch.setattr(cwx_processes, "program", lambda: [sys.executable, "-c", code])
    with caplog.at_level(logging.INFO):
        cwx_processes._write_page(tmp_path)
    assert sorted(caplog.messages) == ["and an error", "the page is there"]
    assert capfd.readouterr().out == ""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/run.yaml").write_text(RUN)
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def start(app, *overrides):
    return subprocess.Popen(
        [sys.executable, "app.py", "-m", *overrides],
        cwd=app,
        env={**os.environ, **FOREIGN, "CUDA_VISIBLE_DEVICES": "4,5"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(app, *overrides):
    process = start(app, *overrides)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def read(file):
    return json.loads(file.read_text())


def test_a_sweep_continues_after_a_failed_job_and_reports_it_at_the_end(app):
    code, output, errors = run(app, "x=1,2,3", "hydra.launcher.n_jobs=2")
    assert code == 1
    assert "Traceback" not in errors
    assert "cwx: 1 of 3 jobs failed; job 1 (x=2) failed: two is bad (see out/job-1)" in errors
    assert "job 1 (x=2) failed after" in output
    *_, header, first, second, third = output.rstrip().split("\n")
    assert header.split() == ["job", "x", "state", "time", "square"]
    assert [line.split()[2] for line in (first, second, third)] == [
        "finished",
        "failed",
        "finished",
    ]
    assert first.split()[-1] == "1"
    assert (app / "out/report.html").exists()
    assert third.split()[-1] == "9"
    states = [read(app / f"out/job-{n}/status.json")["state"] for n in range(3)]
    assert states == ["finished", "failed", "finished"]
    environments = [read(app / f"out/job-{n}/environment.json") for n in range(3)]
    assert not any(environment.keys() & FOREIGN.keys() for environment in environments)
    assert {e["CUDA_VISIBLE_DEVICES"] for e in environments[:2]} == {"4", "5"}
    # A job has its own settings and none of the sweep's.
    saved = OmegaConf.load(app / "out/job-2/.hydra/hydra.yaml").hydra
    assert list(saved.overrides.task) == ["x=3"]
    assert saved.job.num == 2
    assert not [line for line in saved.overrides.hydra if "launcher" in line or "sweep" in line]
    code, _, errors = run(app, "x=1")
    assert code == 1
    assert "cwx: out holds a sweep already: continue it with resume=out" in errors


def test_impossible_folders_are_refused_in_one_line(app):
    code, _, errors = run(app, "x=1", f"hydra.sweep.subdir='{'é=' * 100}'")
    assert code == 1
    assert "cwx: [Errno 36] File name too long" in errors
    assert "Traceback" not in errors
    code, _, errors = run(app, "x=1,3", "hydra.sweep.subdir=same", "hydra.sweep.dir=other")
    assert code == 1
    assert "cwx: job 0 (x=1) and job 1 (x=3) have the folder other/same: let hydra.sweep" in errors


@pytest.mark.parametrize(
    "signal_number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_sweep_stops_its_jobs_and_logs_how_to_resume(app, signal_number):
    process = start(app, "x=9,1", "hydra.launcher.grace=20")
    deadline = time.monotonic() + 60
    while not (app / "out/job-0/sleeps").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal_number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal_number
    assert "Traceback" not in errors
    assert "stopped; continue with: python run.py resume=out" in output
    assert read(app / "out/job-0/status.json")["state"] == "interrupted"
    assert not (app / "out/job-1").exists()
    assert not (app / "out/report.html").exists()
    assert [job["state"] for job in read(app / "out/sweep.json")["jobs"]] == [
        "interrupted",
        "not started",
    ]


def job_returns(tmp_path, optimize, *states):
    """What the launcher returns to the sweeper for jobs with these states."""
    launcher = Processes()
    launcher.setup(
        hydra_context=None, task_function=None, config=OmegaConf.create({"optimize": optimize})
    )
    jobs = []
    for number, state in enumerate(states):
        job = Job(number, tmp_path / str(number), (f"x={number}",), {}, "a", state, "why not", 1.0)
        job.folder.mkdir()
        (job.folder / "metrics.json").write_text('{"a/b": 0.5, "c": 2}')
        jobs.append(job)
    return launcher._returns(jobs)


@pytest.mark.parametrize(
    ("optimize", "value"), [(None, None), ("a/b", 0.5), (["c", "a/b"], [2.0, 0.5])]
)
def test_a_sweeper_receives_the_optimised_metrics(tmp_path, optimize, value):
    (job,) = job_returns(tmp_path, optimize, "finished")
    assert job.status is JobStatus.COMPLETED
    assert job.return_value == value
    assert job.overrides == ["x=0"]


def test_a_sweeper_receives_the_failed_job_that_stopped_others(tmp_path):
    interrupted, failed, late = job_returns(tmp_path, "c", "interrupted", "failed", "not started")
    for job in (interrupted, failed, late):
        assert job.status is JobStatus.FAILED
        with pytest.raises(Exception, match="cwx: 1 of 3 jobs failed; job 1 failed: why not"):
            _ = job.return_value


def test_an_unknown_optimised_metric_fails_the_job(tmp_path):
    (job,) = job_returns(tmp_path, "a/c", "finished")
    with pytest.raises(Exception, match="cwx: optimize is 'a/c'.*did you mean a/b"):
        _ = job.return_value


@pytest.mark.slow
def test_optuna_searches_with_our_launcher(app):
    """Also with a failed trial and one whose metric is not finite.

    By default, the tests above check what a sweeper receives.
    """
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=3"]
    search += ["hydra.sweeper.sampler.seed=0", "hydra.sweeper.max_failure_rate=1"]
    search += ["hydra.launcher.n_jobs=2", "x=choice(2,3,4,5)"]
    code, _, errors = run(app, *search)
    assert code == 0, errors
    best = OmegaConf.load(app / "out/optimization_results.yaml")
    trials = [job["overrides"][0] for job in read(app / "out/sweep.json")["jobs"]]
    assert {"x=2", "x=5"} < set(trials)
    assert len(trials) == 6
    assert best.best_value == min(int(x[2:]) for x in trials if x in ("x=3", "x=4")) ** 2


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_a_study_composes_with_a_launcher_for_clusters(launcher):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    register_resolvers()
    overrides = [f"hydra/launcher={launcher}", "hydra.launcher.gpus_per_node=2", "seed=0,1"]
    directory, settings = sweep_directory(CONF, overrides, extra=None)
    assert settings["gpus_per_node"] == 2
    assert settings["submitit_folder"] == "${hydra.sweep.dir}/.submitit/%j"
    assert str(directory).startswith("runs/digits/quickstart/")
