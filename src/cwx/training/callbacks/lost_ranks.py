"""Ending a run of several processes when one of them is killed."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

import lightning as L

from cwx.storage.signal_names import signal_name

# In seconds: between two looks at the processes; after an error of communication, until the process
# that caused it must have ended.
_POLL, _PATIENCE = 0.5, 2.0


class EndWithLostRank(L.Callback):
    """Ends this process and the ranks that it started soon after a signal has killed one of them.

    The others would wait for it in a collective operation: without end on GPUs, and with an error
    about a connection on CPUs. Lightning kills this process some seconds later, without a message.
    A rank that ends by itself has said why.

    Only processes that Lightning starts on this machine are seen, but at once: before Lightning
    ends this one. `cwx.training.rank_failures` misses a rank on any machine, after a minute.

    Args:
        on_loss: receives the reason, before the processes end with status 1.
    """

    def __init__(self, on_loss: Callable[[str], None]) -> None:
        self._on_loss = on_loss
        self._processes: Sequence[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._is_over = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Lightning starts them once, for the first trainer.
        processes = getattr(trainer.strategy.launcher, "procs", [])
        if processes and isinstance(processes[0], subprocess.Popen):
            self._processes = list(processes)
            threading.Thread(target=self._watch, name="lost-ranks", daemon=True).start()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        # Errors of communication are RuntimeErrors. After any other, such as Ctrl-C, Lightning may
        # kill the ranks itself.
        end = time.monotonic() + _PATIENCE
        while isinstance(exception, RuntimeError) and self._processes and time.monotonic() < end:
            self._end_if_lost()
            time.sleep(0.02)
        self._is_over = True

    def _watch(self) -> None:
        while not self._is_over:
            time.sleep(_POLL)
            self._end_if_lost()

    def _end_if_lost(self) -> None:
        for rank, process in enumerate(self._processes, start=1):
            if (code := process.poll()) is not None and code < 0:
                # Of two threads, one ends the process.
                with self._lock:
                    if not self._is_over:
                        self._end(rank, code)

    def _end(self, rank: int, code: int) -> None:
        name = signal_name(-code)
        cause = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        try:
            self._on_loss(f"the process of rank {rank} was killed by {name}{cause}")
        finally:
            for process in self._processes:
                process.kill()
            # The main thread may hang in a collective operation.
            os._exit(1)
