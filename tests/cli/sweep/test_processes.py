"""Processes that stop when they are told to, and when nobody is left to tell them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cwx.cli.sweep.processes import LAUNCHED, Process, run_all

# Ends with a child of its own at an interrupt, after it has written that it was one.
PATIENT = """
import pathlib, subprocess, sys, time
from cwx.cli.sweep.processes import end_with_launcher
end_with_launcher()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
here = pathlib.Path(sys.argv[1])
try:
    here.with_suffix(".child").write_text(str(child.pid))
    time.sleep(60)
except KeyboardInterrupt:
    here.with_suffix(".interrupted").touch()
    raise SystemExit(3)
"""
STUBBORN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).with_suffix(".child").touch()
time.sleep(60)
"""


def process(code, *arguments, output, grace=30.0):
    return Process(
        [sys.executable, "-c", code, *map(str, arguments)],
        environment=dict(os.environ),
        output=output,
        grace=grace,
    )


def wait(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_there(pid):
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_it_prints_is_added_to_a_file(tmp_path):
    for word in ("one", "two"):
        code = f"import sys; print('{word}'); print('error', file=sys.stderr); sys.exit(4)"
        one = process(code, output=tmp_path / "deep" / "output.log")
        wait(lambda one=one: one.poll() is not None)
        assert one.poll() == 4
        assert one.seconds > 0
    assert sorted((tmp_path / "deep" / "output.log").read_text().split()) == [
        "error", "error", "one", "two",
    ]  # fmt: skip


def started(tmp_path, code, *names):
    """The environments and the callables for `run_all`, and what it told."""
    told = []

    def start(name, environment):
        told.append(("start", name, environment["slot"]))
        output = tmp_path / f"{name}.log"
        return process(code.get(name, "pass"), tmp_path / name, output=output)

    def ended(name, _, code, stopped):
        told.append(("end", name, code, stopped))
        return code == 0

    return told, start, ended


def test_no_more_run_at_a_time_than_there_are_environments(tmp_path):
    told, start, ended = started(tmp_path, dict.fromkeys("abcd", "import time; time.sleep(0.2)"))
    slots = [{"slot": "0"}, {"slot": "1"}]
    run_all("abcd", environments=slots, start=start, ended=ended, fail_fast=False, grace=5)
    running = most = 0
    for what, *_ in told:
        running += 1 if what == "start" else -1
        most = max(most, running)
    assert most == 2
    assert {name for what, name, *_ in told if what == "end"} == set("abcd")
    assert told[:2] == [("start", "a", "0"), ("start", "b", "1")]


@pytest.mark.parametrize("fail_fast", [False, True])
def test_one_that_fails_stops_the_others_only_if_asked(tmp_path, fail_fast):
    bad = """
import pathlib, sys, time
while not list(pathlib.Path(sys.argv[1]).parent.glob("*.child")):
    time.sleep(0.02)
raise SystemExit(1)
"""
    brief = "import pathlib, sys; pathlib.Path(sys.argv[1] + '.child').touch()"
    patient = PATIENT if fail_fast else brief
    told, start, ended = started(tmp_path, {"bad": bad, "patient": patient})
    run_all(
        ["bad", "patient", "late"],
        environments=[{"slot": "0"}, {"slot": "1"}],
        start=start,
        ended=ended,
        fail_fast=fail_fast,
        grace=30,
    )
    assert ("end", "bad", 1, False) in told
    if fail_fast:
        assert told[-1] == ("end", "patient", 3, True)
        assert (tmp_path / "patient.interrupted").exists()
        child = int((tmp_path / "patient.child").read_text())
        wait(lambda: not is_there(child))
    else:
        assert {entry[1:] for entry in told if entry[0] == "end"} >= {
            ("patient", 0, False),
            ("late", 0, False),
        }


@pytest.mark.parametrize("step", ["start", "ended"])
def test_none_outlives_what_could_not_be_done_for_another(tmp_path, step):
    """A folder cannot be made, say, or the disk is full."""
    told, start, ended = started(tmp_path, {"a": PATIENT})

    def refuse(name, *rest):
        if name == "b":
            wait(lambda: (tmp_path / "a.child").exists())
            raise OSError("no space left")
        return {"start": start, "ended": ended}[step](name, *rest)

    with pytest.raises(OSError, match="no space left"):
        run_all(
            "ab",
            environments=[{"slot": "0"}, {"slot": "1"}],
            **{"start": start, "ended": ended, step: refuse},
            fail_fast=False,
            grace=20,
        )
    assert told[-1] == ("end", "a", 3, True)
    assert (tmp_path / "a.interrupted").exists()


def test_one_that_does_not_stop_is_killed(tmp_path):
    told, start, ended = started(tmp_path, {"a": STUBBORN})

    def interrupted(name, environment):
        if name == "b":
            wait(lambda: (tmp_path / "a.child").exists())
            raise KeyboardInterrupt
        return start(name, environment)

    with pytest.raises(KeyboardInterrupt):
        run_all(
            "ab",
            environments=[{"slot": "0"}, {"slot": "1"}],
            start=interrupted,
            ended=ended,
            fail_fast=False,
            grace=0.3,
        )
    assert told[-1] == ("end", "a", -signal.SIGKILL, True)


LAUNCHER = """
import os, pathlib, sys, time
from cwx.cli.sweep.processes import Process
here = pathlib.Path(sys.argv[1])
one = Process([sys.executable, "-c", sys.argv[2], here / "job"], environment=dict(os.environ),
              output=here / "output.log", grace=20)
time.sleep(60)
"""


def test_a_process_ends_with_its_launcher_however_that_was_killed(tmp_path):
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, tmp_path, PATIENT])
    wait(lambda: (tmp_path / "job.child").exists() and (tmp_path / "job.child").read_text())
    launcher.kill()
    launcher.wait()
    wait(lambda: (tmp_path / "job.interrupted").exists())


def test_a_process_that_was_not_launched_reads_no_input():
    code = "import cwx.cli.sweep.processes as p; p.end_with_launcher(); print(input())"
    environment = {name: value for name, value in os.environ.items() if name != LAUNCHED}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="hello\n",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "hello\n"
