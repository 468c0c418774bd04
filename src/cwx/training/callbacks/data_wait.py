"""How long training waits for its batches."""

import logging
import time
from collections import deque
from typing import Any

import lightning as L
import torch

from cwx.data.streamed_images import StreamedImages

log = logging.getLogger(__name__)

# In seconds: shorter measurements are noise.
_SHORTEST = 10.0
# The share of the time from which the log says how to wait less.
_LARGE = 1 / 3


class DataWait(L.Callback):
    """Measures the share of training time in which the device waits for the next batch.

    On a CPU this is the time between the end of a step and the start of the next one. A GPU works
    behind the program: there it is the time between the end of the work of a step and the start of
    that of the next one, measured by events of its stream. The time outside epochs, such as for the
    accuracies, is not counted. Other accelerators are not measured.

    At the end of each epoch, once 10 seconds have been measured since the last values, the loggers
    receive for each network:

    - ``<stage>/data_wait``: the share, 0-1; the largest of all ranks;
    - ``<stage>/images_per_second``: images of steps per second on all ranks together; an image
      counts once, also if several networks train on it.

    These are times, not results: checkpoints and metrics of a run do not have them.

    This callback must come after those that work between steps, such as checkpoints.
    """

    def __init__(self) -> None:
        self._has_warned = False
        self._reset()

    def _reset(self) -> None:
        self._waited = self._trained = 0.0
        self._images = 0
        # The end of a step and the start of the next one.
        self._gaps: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @property
    def share(self) -> float | None:
        """Of the waiting time, 0-1, since the last values; ``None`` before 10 seconds."""
        self._drain()
        return self._waited / self._trained if self._trained >= _SHORTEST else None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reset()
        self._device = trainer.strategy.root_device.type
        # Also of an epoch that is continued.
        self._begin()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin()

    def _begin(self) -> None:
        self._end_time = time.monotonic()
        self._end_event = self._event()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._end_event is None:
            self._waited += time.monotonic() - self._end_time
        elif (start := self._event()) is not None:
            self._gaps.append((self._end_event, start))
            self._drain()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        end = time.monotonic()
        self._trained += end - self._end_time
        self._images += batch[0].total
        self._end_time, self._end_event = time.monotonic(), self._event()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module: Any = pl_module
        strategy = trainer.strategy
        if self._device not in ("cpu", "cuda") or not strategy.broadcast(self.share is not None):
            return
        share = torch.tensor(self._waited / self._trained, device=strategy.root_device)
        wait = float(strategy.reduce(share, reduce_op="max"))
        if trainer.is_global_zero:
            values = {"data_wait": wait, "images_per_second": self._images / self._trained}
            row = {f"{stage}/{name}": v for stage in module.stages for name, v in values.items()}
            for logger in trainer.loggers:
                logger.log_metrics(row, step=trainer.global_step)
            if wait > _LARGE:
                self._warn(module, wait)
        self._reset()

    def _event(self) -> torch.cuda.Event | None:
        if self._device != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _drain(self) -> None:
        while self._gaps and self._gaps[0][1].query():
            end, start = self._gaps.popleft()
            self._waited += end.elapsed_time(start) / 1000

    def _warn(self, module: Any, wait: float) -> None:
        images = module.batches.splits.train.images
        if self._has_warned or not isinstance(images, StreamedImages):
            return
        self._has_warned = True
        log.warning(
            "the training of %s waits for images for %.0f %% of its time: raise data.workers (it "
            "is %d), or set data.storage=memory if the images fit; the networks stay the same",
            module.stage,
            100 * wait,
            images.files.workers,
        )
