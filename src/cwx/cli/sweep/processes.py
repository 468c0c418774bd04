"""Commands in processes of their own, several at a time: what the jobs of a sweep run in."""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

# Says that a `Process` is launched, and how many seconds it has to end once its launcher is gone.
LAUNCHED = "CWX_LAUNCHED"
_POLL = 0.1

Job = TypeVar("Job")


class Process:
    """A command that runs, in a group of its own with whatever it starts.

    Args:
        environment: all of its variables.
        output: the file to which all that it prints is added.
        grace: seconds that it has to end once this process is gone.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], output: Path, grace: float
    ) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic()
        with output.open("ab") as file:
            # In a session of its own: the terminal's Ctrl-C is for the launcher, who passes it on.
            self._process = subprocess.Popen(
                command,
                env={**environment, LAUNCHED: str(grace)},
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def poll(self) -> int | None:
        """Its exit code, negative if a signal ended it; ``None`` while it runs."""
        if self._process.returncode is None and self._process.poll() is not None:
            # A rank that waits for one which is no more would keep its GPU.
            self._send_to_all(signal.SIGKILL)
            if self._process.stdin:
                self._process.stdin.close()
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Signal it and all that it started, if it runs."""
        # Once it is known to have ended, its number may be another's.
        if self._process.returncode is None:
            self._send_to_all(number)

    def _send_to_all(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            # None is left, which macOS says in the second way.
            return


def end_with_launcher() -> None:
    """In what a `Process` runs: stop as by Ctrl-C once the launcher is gone.

    Its standard input is a pipe to which only the launcher holds the other end, so that the system
    closes it whatever ended the launcher. Does nothing in any other process.
    """
    if LAUNCHED not in os.environ:
        return
    grace = float(os.environ[LAUNCHED])
    # A shell starts its background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        # Not by sys.stdin, whose lock the interpreter wants when it ends.
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(grace)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="launcher", daemon=True).start()


@dataclass(frozen=True)
class _Running(Generic[Job]):
    job: Job
    process: Process
    environment: Mapping[str, str]


def run_all(
    jobs: Sequence[Job],
    *,
    environments: Sequence[Mapping[str, str]],
    start: Callable[[Job, Mapping[str, str]], Process],
    ended: Callable[[Job, Process, int, bool], bool],
    fail_fast: bool,
    grace: float,
) -> None:
    """Run each job in a process, as many at a time as there are environments.

    Args:
        ended: told the exit code, and whether the job had been told to stop; says if it succeeded.
        fail_fast: stop all others, and begin none, once one has failed.
        grace: seconds that jobs have to end when they are told to stop.

    Raises:
        BaseException: what `start` or `ended` raised, or a signal's handler, as KeyboardInterrupt;
            after the jobs that ran have ended.
    """
    waiting, free = deque(jobs), deque(environments)
    running: list[_Running[Job]] = []
    try:
        while waiting or running:
            while waiting and free:
                job, environment = waiting.popleft(), free.popleft()
                running.append(_Running(job, start(job, environment), environment))
            for one in list(running):
                if (code := one.process.poll()) is not None:
                    running.remove(one)
                    free.append(one.environment)
                    if not ended(one.job, one.process, code, False) and fail_fast:
                        _stop(running, ended, grace)
                        return
            time.sleep(_POLL)
    except BaseException:
        _stop(running, ended, grace)
        raise


def _stop(
    running: Sequence[_Running[Job]],
    ended: Callable[[Job, Process, int, bool], bool],
    grace: float,
) -> None:
    """Let them write what they have; who asks twice, or waits for `grace` seconds, kills them."""
    for one in running:
        one.process.send(signal.SIGINT)
    deadline = time.monotonic() + grace
    try:
        while any(one.process.poll() is None for one in running) and time.monotonic() < deadline:
            time.sleep(_POLL)
    except KeyboardInterrupt:
        pass
    for one in running:
        one.process.send(signal.SIGKILL)
    codes = [_waited_for(one.process) for one in running]
    # Last, for what is told of one may fail.
    for one, code in zip(running, codes, strict=True):
        ended(one.job, one.process, code, True)


def _waited_for(process: Process) -> int:
    while (code := process.poll()) is None:
        time.sleep(_POLL)
    return code
