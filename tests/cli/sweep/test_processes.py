"""Processes stop on an interrupt, and when their launcher has ended."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cwx.cli.sweep.processes import GRACE_VARIABLE, Process, run_all

# Has a child process; records an interrupt and ends.
PATIENT = """
import pathlib, subprocess, sys, time
from cwx.cli.sweep.processes import stop_with_launcher
stop_with_launcher()
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


def is_running(pid):
    """Whether a process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_is_appended_to_a_file(tmp_path):
    for word in ("one", "two"):
        code = f"import sys; print('{word}'); print('error', file=sys.stderr); sys.exit(4)"
        printer = process(code, output=tmp_path / "deep" / "output.log")
        wait(lambda printer=printer: printer.poll() is not None)
        assert printer.poll() == 4
        assert printer.seconds > 0
    assert sorted((tmp_path / "deep" / "output.log").read_text().split()) == [
        "error", "error", "one", "two",
    ]  # fmt: skip


def callbacks(tmp_path, code):
    """A list of events, and the callables for `run_all` that append to it."""
    events = []

    def start(name, environment):
        events.append(("start", name, environment["slot"]))
        output = tmp_path / f"{name}.log"
        return process(code.get(name, "pass"), tmp_path / name, output=output)

    def on_end(name, _, code, stopped):
        events.append(("end", name, code, stopped))
        return code == 0

    return events, start, on_end


def test_at_most_one_process_runs_per_environment(tmp_path):
    events, start, on_end = callbacks(
        tmp_path, dict.fromkeys("abcd", "import time; time.sleep(0.2)")
    )
    slots = [{"slot": "0"}, {"slot": "1"}]
    run_all("abcd", environments=slots, start=start, on_end=on_end, fail_fast=False, grace=5)
    running = most = 0
    for what, *_ in events:
        running += 1 if what == "start" else -1
        most = max(most, running)
    assert most == 2
    assert {name for what, name, *_ in events if what == "end"} == set("abcd")
    assert events[:2] == [("start", "a", "0"), ("start", "b", "1")]


@pytest.mark.parametrize("fail_fast", [False, True])
def test_a_failure_stops_the_others_with_fail_fast_only(tmp_path, fail_fast):
    bad = """
import pathlib, sys, time
while not list(pathlib.Path(sys.argv[1]).parent.glob("*.child")):
    time.sleep(0.02)
raise SystemExit(1)
"""
    brief = "import pathlib, sys; pathlib.Path(sys.argv[1] + '.child').touch()"
    patient = PATIENT if fail_fast else brief
    events, start, on_end = callbacks(tmp_path, {"bad": bad, "patient": patient})
    run_all(
        ["bad", "patient", "late"],
        environments=[{"slot": "0"}, {"slot": "1"}],
        start=start,
        on_end=on_end,
        fail_fast=fail_fast,
        grace=30,
    )
    assert ("end", "bad", 1, False) in events
    if fail_fast:
        assert events[-1] == ("end", "patient", 3, True)
        assert (tmp_path / "patient.interrupted").exists()
        child = int((tmp_path / "patient.child").read_text())
        wait(lambda: not is_running(child))
    else:
        assert {entry[1:] for entry in events if entry[0] == "end"} >= {
            ("patient", 0, False),
            ("late", 0, False),
        }


@pytest.mark.parametrize("step", ["start", "on_end"])
def test_an_error_for_one_job_stops_the_others(tmp_path, step):
    """Such as a folder that cannot be created, or a full disk."""
    events, start, on_end = callbacks(tmp_path, {"a": PATIENT})

    def refuse(name, *rest):
        if name == "b":
            wait(lambda: (tmp_path / "a.child").exists())
            raise OSError("no space left")
        return {"start": start, "on_end": on_end}[step](name, *rest)

    with pytest.raises(OSError, match="no space left"):
        run_all(
            "ab",
            environments=[{"slot": "0"}, {"slot": "1"}],
            **{"start": start, "on_end": on_end, step: refuse},
            fail_fast=False,
            grace=20,
        )
    assert events[-1] == ("end", "a", 3, True)
    assert (tmp_path / "a.interrupted").exists()


def test_a_process_that_ignores_the_interrupt_is_killed(tmp_path):
    events, start, on_end = callbacks(tmp_path, {"a": STUBBORN})

    def interrupt(name, environment):
        if name == "b":
            wait(lambda: (tmp_path / "a.child").exists())
            raise KeyboardInterrupt
        return start(name, environment)

    with pytest.raises(KeyboardInterrupt):
        run_all(
            "ab",
            environments=[{"slot": "0"}, {"slot": "1"}],
            start=interrupt,
            on_end=on_end,
            fail_fast=False,
            grace=0.3,
        )
    assert events[-1] == ("end", "a", -signal.SIGKILL, True)


LAUNCHER = """
import os, pathlib, sys, time
from cwx.cli.sweep.processes import Process
here = pathlib.Path(sys.argv[1])
job = Process([sys.executable, "-c", sys.argv[2], here / "job"], environment=dict(os.environ),
              output=here / "output.log", grace=20)
time.sleep(60)
"""


def test_a_process_ends_with_its_killed_launcher(tmp_path):
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, tmp_path, PATIENT])
    wait(lambda: (tmp_path / "job.child").exists() and (tmp_path / "job.child").read_text())
    launcher.kill()
    launcher.wait()
    wait(lambda: (tmp_path / "job.interrupted").exists())


def test_a_process_without_launcher_leaves_its_input_unread():
    code = "import cwx.cli.sweep.processes as p; p.stop_with_launcher(); print(input())"
    environment = {name: value for name, value in os.environ.items() if name != GRACE_VARIABLE}
    finished = subprocess.run(
        [sys.executable, "-c", code],
        input="hello\n",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == "hello\n"
