"""Keeping the signal handlers of the program while Lightning runs."""

import signal
import threading
from typing import Any

import lightning as L


class KeepSignalHandler(L.Callback):
    """Restores the handler of SIGTERM that Lightning replaces when it starts a stage.

    Lightning's handler broadcasts to all ranks from within whatever collective operation is going
    on, which may hang, and lets the process end with status 0. Without a handler of the program,
    as in a notebook, Lightning's stays.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, *_: Any) -> None:
        self._restore()

    def on_predict_start(self, *_: Any) -> None:
        self._restore()

    def _restore(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if callable(self._handler) and in_main_thread:
            signal.signal(signal.SIGTERM, self._handler)
