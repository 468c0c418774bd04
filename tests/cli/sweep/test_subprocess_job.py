"""Jobs that another launcher, such as submitit, calls in its own processes."""

import json
import os
import signal
import subprocess
import sys

import pytest

from cwx.cli.sweep.command_line import JobCommands
from cwx.cli.sweep.resources import is_scheduler_rank, rank
from cwx.cli.sweep.subprocess_job import is_requeued, run_in_subprocess
from cwx.storage.sweeps import Job

JOB = """
import json, os, pathlib, signal, sys, time
folder, way = pathlib.Path(sys.argv[1]), sys.argv[2]
# As `stop_with_launcher` does: a shell starts its background jobs with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
if way == "dies":
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if way == "called back":
    try:
        os.kill(os.getppid(), signal.SIGUSR1)
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / "status.json").write_text('{"state": "interrupted", "reason": "told"}')
        raise SystemExit(1)
(folder / "status.json").write_text('{"state": "finished"}')
"""
OF_SLURM = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SUBMITIT_EXECUTOR": "slurm"}


class SmallCommands(JobCommands):
    def start_command(self, job):
        return [*self.entry, str(job.folder), *job.overrides]

    def resume_command(self, job):
        return [*self.entry, str(job.folder), "goes on"]


SMALL = SmallCommands([sys.executable, "-c", JOB], [])


def run_job(folder, way, *, resumed=False):
    job = Job(3, folder, (way,), {}, "mine")
    run_in_subprocess(job, SMALL, resumed=resumed)
    return job


def test_a_job_is_not_a_rank_of_the_scheduler(tmp_path, monkeypatch):
    for name, value in OF_SLURM.items():
        monkeypatch.setenv(name, value)
    assert run_job(tmp_path / "a", "plain").state == "finished"
    environment = json.loads((tmp_path / "a/environment.json").read_text())
    assert not environment.keys() & OF_SLURM.keys()
    assert environment["PATH"] == os.environ["PATH"]


def test_a_killed_job_is_reported_and_can_be_resumed(tmp_path):
    with pytest.raises(
        ValueError, match=r"a failed: its process was killed by SIGKILL.*last words"
    ):
        run_job(tmp_path / "a", "dies")
    assert json.loads((tmp_path / "a/status.json").read_text())["state"] == "failed"
    with pytest.raises(ValueError, match="a holds a run already: continue the sweep with resume="):
        run_job(tmp_path / "a", "plain")
    assert run_job(tmp_path / "a", "plain", resumed=True).state == "finished"


def test_a_signal_to_the_waiting_process_ends_the_job(tmp_path):
    def leave(*_):
        raise SystemExit(144)

    earlier = signal.signal(signal.SIGUSR1, leave)
    try:
        with pytest.raises(SystemExit) as left:
            run_job(tmp_path / "a", "called back")
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    assert left.value.code == 144
    assert json.loads((tmp_path / "a/status.json").read_text())["reason"] == "told"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (False, 0)),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, (False, 0)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, (True, 0)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, (True, 3)),
    ],
)
def test_ranks_of_a_scheduler_are_recognised(environment, expected):
    assert (is_scheduler_rank(environment), rank(environment)) == expected


def test_a_job_is_requeued_if_submitit_calls_it_again(tmp_path):
    first = {"SUBMITIT_EXECUTOR": "slurm"}
    assert not is_requeued(tmp_path, "7_1", {})
    assert not is_requeued(tmp_path, "7_1", first)
    assert is_requeued(tmp_path, "7_1", first)
    # Another sweep in the same folder is not a requeue.
    assert not is_requeued(tmp_path, "8_1", first)
    # Only rank 0 writes the file.
    other = {**first, "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
    assert not is_requeued(tmp_path / "new", "9", other)
    assert not (tmp_path / "new").exists()


# The real entry with an artificial run, whose first start makes submitit requeue the job.
APP = """
import json, os, signal, sys, time
from cwx.cli import run as entry

def run(config, folder, *, resumed):
    say = lambda state: (folder / "status.json").write_text(json.dumps({"state": state}))
    if not resumed:
        say("running")
        try:
            os.kill(os.getppid(), signal.SIGUSR2)
            time.sleep(60)
        except KeyboardInterrupt:
            say("interrupted")
            raise
    (folder / "metrics.json").write_text(json.dumps({"double": 2 * config.seed}))
    say("finished")

entry._run = run
if __name__ == "__main__":
    entry.main()
"""


@pytest.mark.slow
def test_a_requeued_job_is_resumed(tmp_path):
    """By default, the tests above check each part of this."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "app.py").write_text(APP)
    sweep = ["-m", "seed=3", "optimize=double", "hydra.sweep.dir=out"]
    done = subprocess.run(
        [sys.executable, "app.py", *sweep, "hydra/launcher=submitit_local"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/0/status.json").read_text())["state"] == "finished"
    assert json.loads((tmp_path / "out/0/metrics.json").read_text()) == {"double": 6}
    assert "stopped; continue with" in (tmp_path / "out/0/output.log").read_text()
