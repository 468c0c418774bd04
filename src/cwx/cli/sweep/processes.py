"""Runs commands in subprocesses, several at a time, and stops them with their launcher."""

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

# The environment variable of a `Process` with the seconds that it has to end after its launcher.
GRACE_VARIABLE = "CWX_LAUNCHED"
_POLL = 0.1
# Seconds after the grace, in which the whole process group is killed first.
_ALARM = 1.0

Job = TypeVar("Job")


class Process:
    """A running command, in a process group with all processes that it starts.

    Args:
        environment: all environment variables.
        output: the file to which stdout and stderr are appended.
        grace: seconds that it has to end after this process has ended.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], output: Path, grace: float
    ) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        self._start = time.monotonic()
        with output.open("ab") as file:
            # A separate session: the terminal sends Ctrl-C to the launcher, which passes it on.
            self._process = subprocess.Popen(
                command,
                env={**environment, GRACE_VARIABLE: str(grace)},
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def poll(self) -> int | None:
        """The exit code, negative if a signal ended the process; ``None`` while it runs."""
        if self._process.returncode is None and self._process.poll() is not None:
            # A DDP rank that waits for an ended rank would keep its GPU.
            self._send_to_all(signal.SIGKILL)
            if self._process.stdin:
                self._process.stdin.close()
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process group, if the process runs."""
        # After its end, another process may have its id.
        if self._process.returncode is None:
            self._send_to_all(number)

    def _send_to_all(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            # No process is left; macOS raises PermissionError.
            return


def stop_with_launcher() -> None:
    """In a `Process`: stop as by Ctrl-C once the launcher has ended.

    Standard input is a pipe from the launcher, which the system closes however the launcher ends.
    Does nothing in other processes.
    """
    if GRACE_VARIABLE not in os.environ:
        return
    grace = float(os.environ[GRACE_VARIABLE])
    # A shell starts its background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def watch() -> None:
        # Not sys.stdin: the interpreter needs its lock when it ends.
        while os.read(0, 1024):
            pass
        # The alarm ends a process that hangs while its interpreter ends, when no thread runs.
        signal.setitimer(signal.ITIMER_REAL, max(grace, _POLL) + _ALARM)
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
    on_end: Callable[[Job, Process, int, bool], bool],
    fail_fast: bool,
    grace: float,
) -> None:
    """Run each job in a process, as many at a time as there are environments.

    Args:
        on_end: called with the job, its process, its exit code and whether it was stopped; returns
            whether the job succeeded.
        fail_fast: after a failure, stop all running jobs and start no other.
        grace: seconds that stopped jobs have to end.

    Raises:
        BaseException: raised by `start`, `on_end` or a signal handler (KeyboardInterrupt), after
            the running jobs have ended.
    """
    waiting, free = deque(jobs), deque(environments)
    running: list[_Running[Job]] = []
    try:
        while waiting or running:
            while waiting and free:
                job, environment = waiting.popleft(), free.popleft()
                running.append(_Running(job, start(job, environment), environment))
            for item in list(running):
                if (code := item.process.poll()) is not None:
                    running.remove(item)
                    free.append(item.environment)
                    if not on_end(item.job, item.process, code, False) and fail_fast:
                        _stop(running, on_end, grace)
                        return
            time.sleep(_POLL)
    except BaseException:
        _stop(running, on_end, grace)
        raise


def _stop(
    running: Sequence[_Running[Job]],
    on_end: Callable[[Job, Process, int, bool], bool],
    grace: float,
) -> None:
    """Interrupt the jobs; kill them after `grace` seconds or a second Ctrl-C."""
    for item in running:
        item.process.send(signal.SIGINT)
    deadline = time.monotonic() + grace
    try:
        while any(item.process.poll() is None for item in running) and time.monotonic() < deadline:
            time.sleep(_POLL)
    except KeyboardInterrupt:
        pass
    for item in running:
        item.process.send(signal.SIGKILL)
    codes = [_wait(item.process) for item in running]
    # Last, for a call may raise.
    for item, code in zip(running, codes, strict=True):
        on_end(item.job, item.process, code, True)


def _wait(process: Process) -> int:
    while (code := process.poll()) is None:
        time.sleep(_POLL)
    return code
