"""Signals that stop a run, and the exit status that shells expect after them."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cwx.cli.sweep.resources import is_local_rank

# SIGTERM is sent by schedulers and `kill`, SIGHUP by a closed terminal.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PARENT = "CWX_PARENT"
_PR_SET_PDEATHSIG = 1
_POLL = 0.5
_received: list[int] = []


def stop_on_signals() -> None:
    """Raise an exception in the main thread on SIGINT, SIGTERM and SIGHUP.

    SIGINT raises KeyboardInterrupt; the others raise SystemExit with the status 128 + signal, and
    only once: a second one must not interrupt the writing of the final state. A signal that is
    ignored, as by `nohup`, stays ignored.
    """
    for number in _STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, _: FrameType | None) -> None:
    if is_local_rank(os.environ):
        # The parent stops all ranks; a terminal sends SIGINT to it too.
        if number != signal.SIGINT:
            os.kill(os.getppid(), number)
        return
    repeated = bool(_received)
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if not repeated:
        raise SystemExit(128 + number)


@contextmanager
def exit_status_of_signals() -> Iterator[None]:
    """Exit with the status 128 + signal if the block was stopped by a signal.

    Libraries replace the exception of a signal: Lightning exits with status 1 after Ctrl-C and
    with status 0 after SIGTERM. A message of the program stays.

    Raises:
        SystemExit: after a signal, however the block ended.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + (_received or [signal.SIGINT])[0])
    except SystemExit as error:
        if not _received:
            raise
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
        sys.exit(128 + _received[0])
    if _received:
        sys.exit(128 + _received[0])


def end_with_parent() -> None:
    """In a process that Lightning starts for DDP: end as soon as its parent has ended.

    Such a process writes no state of the run, and may wait for its parent in a collective
    operation, where no signal handler runs. In the parent: record its id for these processes.
    """
    if not is_local_rank(os.environ):
        os.environ[_PARENT] = str(os.getpid())
        return
    parent = int(os.environ.get(_PARENT, os.getppid()))
    if sys.platform == "linux":
        # Also reaches a process that hangs while its interpreter ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
