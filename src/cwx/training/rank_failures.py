"""An error on one rank, or its loss, ends the work of all ranks.

A rank that fails takes no part in the next collective operation, in which the others would wait for
it: with NCCL until a timeout, and without a message about the cause. The ranks therefore tell each
other about errors beside these operations, in the store of the process group. There they also give
signs of life: a rank on another machine that is killed tells nobody.
"""

import logging
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

from torch import distributed as dist

log = logging.getLogger(__name__)

# Most seconds between two looks at the store, of a rank that waits and of the thread that watches.
_POLL, _WATCH = 0.05, 0.25
# Seconds that the main thread has to raise the error of another rank, or one of its own.
_GRACE = 3.0
# Seconds for which the first rank waits until the others know of its error, and for which these
# then wait for its end.
_NOTICE, _END = 5.0, 300.0
# Seconds between two signs of life of a rank, and the number of looks at them without a new one
# after which it is lost. A thread gives them, which no work of the main thread holds up for long.
# Looks are counted, not seconds: all ranks may have been stopped and continued.
_BEAT, _LOOKS = 5.0, 12
# Seconds for which a rank that has lost the store, and so the first rank, may still end by itself.
_ALONE = 10.0
# A larger exception, such as one with images, is sent as its message.
_MOST_BYTES = 2**20

_waits = count()
# Set while the main thread handles an error.
_raised = threading.Event()


class LostRankError(RuntimeError):
    """A rank gives no sign of life."""


def is_parallel() -> bool:
    """Whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def raised_on_all_ranks() -> Iterator[None]:
    """A context whose error all ranks get to know: those that wait in `await_all_ranks` raise it.

    Nothing else happens with a single rank.
    """
    try:
        yield
    except BaseException as error:
        announce(error)
        raise


def announce(error: BaseException) -> None:
    """Let all ranks know of an error that the main thread raises; of none but the first."""
    _raised.set()
    if isinstance(error, Exception) and is_parallel():
        _publish(error)


def await_all_ranks() -> None:
    """Wait until all ranks have made this call.

    Raises:
        Exception: that of another rank, whose traceback is a note of it.
    """
    store, key, pause = _store(), f"arrived/{next(_waits)}", 0.001
    store.add(key, 1)
    while store.add(key, 0) < dist.get_world_size():
        failure = _published(store)
        if failure is not None:
            _raised.set()
            raise failure
        time.sleep(pause)
        pause = min(2 * pause, _POLL)


@contextmanager
def ended_together(on_failure: Callable[[Exception], None]) -> Iterator[None]:
    """A context that all ranks leave with the error of any, also those in a collective operation.

    No exception reaches a thread in such an operation. A second thread watches for errors of other
    ranks, and for ranks that are lost, and ends a process that does not raise them. Rank 0 alone
    reports an error; the others end after it, for a launcher may kill all ranks once the first has
    ended.

    Args:
        on_failure: called on rank 0 before its process ends within a collective operation.
    """
    _raised.clear()
    left = threading.Event()
    watch = threading.Thread(target=_watch, args=(left, on_failure), name="ranks", daemon=True)
    watch.start()
    try:
        with raised_on_all_ranks():
            yield
    except Exception:
        if is_parallel():
            _leave()
        raise
    else:
        if is_parallel() and dist.get_rank() > 0:
            _notice()
    finally:
        left.set()


def _watch(left: threading.Event, on_failure: Callable[[Exception], None]) -> None:
    store, signs = None, None
    while not left.wait(_WATCH):
        if store is None:
            if not is_parallel():
                continue
            # The main thread may wait for a key in the other connection.
            store = _store(clone=True)
            signs = _SignsOfLife(store)
        assert signs is not None
        try:
            failure = _published(store) or signs.lost()
        except RuntimeError:
            # The first rank, which has the store, has ended.
            if not (_raised.wait(_ALONE) or left.is_set()):
                os._exit(1)
            return
        if failure is None:
            continue
        if _raised.wait(_GRACE) or left.is_set():
            return
        try:
            if dist.get_rank() == 0:
                on_failure(failure)
                store.set("reported", "")
            else:
                _await_report(store)
        finally:
            os._exit(1)


class _SignsOfLife:
    """Gives those of this rank, and watches for others: rank 0 for all, the others for rank 0."""

    def __init__(self, store: Any) -> None:
        self._store, self._next = store, 0.0
        self._rank = dist.get_rank()
        watched = range(1, dist.get_world_size()) if self._rank == 0 else [0]
        # The last sign of each rank, and the looks since it.
        self._seen = dict.fromkeys(watched, (0, 0))

    def lost(self) -> LostRankError | None:
        """An error if a rank is lost; most calls only return."""
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + _BEAT
        self._store.add(f"signs/{self._rank}", 1)
        for rank, (last, looks) in self._seen.items():
            sign = self._store.add(f"signs/{rank}", 0)
            self._seen[rank] = (sign, 0 if sign != last else looks + 1)
            if self._seen[rank][1] >= _LOOKS and not self._store.check([f"left/{rank}"]):
                return LostRankError(
                    f"rank {rank} has given no sign of life for {_BEAT * _LOOKS:.0f} seconds: its "
                    "process was killed, or its machine is lost"
                )
        return None


def _leave() -> None:
    """The end of a rank after an error; returns only on rank 0."""
    store = _store(clone=True)
    if dist.get_rank() > 0:
        _await_report(store)
        os._exit(1)
    store.set("reported", "")
    # The store ends with this process.
    _poll(lambda: store.add("noticed", 0) >= dist.get_world_size() - 1, _NOTICE)


def _notice() -> None:
    """Rank 0 need not wait for this rank if it fails later, nor for its signs of life."""
    # Rank 0 may have ended already.
    with suppress(RuntimeError):
        store = _store(clone=True)
        store.set(f"left/{dist.get_rank()}", "")
        store.add("noticed", 1)


def _await_report(store: Any) -> None:
    with suppress(RuntimeError):
        store.add("noticed", 1)
        _poll(lambda: store.check(["reported"]), _END)
        # Until the store ends with the process of rank 0, or a launcher that has it goes on.
        _poll(lambda: store.add("noticed", 0) < 0, _NOTICE)


def _poll(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(_POLL)


def _store(*, clone: bool = False) -> Any:
    store = dist.distributed_c10d._get_default_store()
    return dist.distributed_c10d.PrefixStore("cwx", store.clone() if clone else store)


def _publish(error: Exception) -> None:
    sent = _portable(error)
    details = "".join(traceback.format_exception(error))
    sent.add_note(f"raised on rank {dist.get_rank()}:\n{details}")
    # The first error counts: later ones may be its consequences.
    _store().compare_set("failure", "", pickle.dumps((dist.get_rank(), sent)))


def _published(store: Any) -> Exception | None:
    """The error of another rank."""
    if not store.check(["failure"]):
        return None
    sent: tuple[int, Exception] = pickle.loads(store.get("failure"))
    rank, error = sent
    return None if rank == dist.get_rank() else error


def _portable(error: Exception) -> Exception:
    """A copy that another process can read."""
    try:
        content = pickle.dumps(error)
        if len(content) <= _MOST_BYTES:
            copy: Exception = pickle.loads(content)
            return copy
    except Exception as unreadable:
        log.debug("sent as its message: %s", unreadable)
    if isinstance(error, ValueError | OSError | MemoryError):
        return ValueError(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")
