"""A script: trains two networks, and is killed at a given step.

Arguments: a folder with images, the folder of the store, `Cut` as JSON. When the training ends, the
state of the optimiser and of the schedules is in ``end.pt`` of the store, and the number of images
that rank 0 has decoded in ``decoded``.
"""

import json
import multiprocessing
import os
import signal
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from support.builders import expert_requests, experts, image_data, sgd, stages
from support.pictures import UNSET
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from cwx.data.datasets.folders import ImageFolder
from cwx.data.random_crops import RandomCrops
from cwx.data.streamed_images import StreamedImages
from cwx.functional.augmentation import Crop, Strategy
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.callbacks.checkpoints import CheckpointWithinEpoch

# 33 images: the last batch of an epoch is smaller.
BATCH, STEPS, EPOCHS = 7, 5, 3
# A schedule by epoch, one of the mean loss of the epoch, and one by step.
SCHEDULES = {
    "epoch": partial(ExponentialLR, gamma=0.5),
    "plateau": partial(ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.8),
    "step": partial(ExponentialLR, gamma=0.9),
}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How the networks are trained, and when the training is killed.

    Attributes:
        every: a checkpoint after each number of steps; ``None`` after each epoch only.
        killed_at: the step that kills all processes; ``None`` for no step.
    """

    storage: str = "memory"
    workers: int = 0
    ranks: int = 1
    schedule: str = "epoch"
    every: int | None = None
    killed_at: int | None = None

    def arguments(self, images, store):
        return [images, store, json.dumps(asdict(self))]


def network(in_channels, image_size, num_classes):
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(6 * image_size[0] * image_size[1], num_classes),
    )


def checkpoints_every(steps):
    """Let the time pass by steps."""
    write = CheckpointWithinEpoch.on_train_batch_end

    def write_if_due(callback, trainer, *arguments, **others):
        if trainer.global_step % steps == 0:
            write(callback, trainer, *arguments, **others)

    CheckpointWithinEpoch.on_train_batch_end = write_if_due


def module(data, seeds, cut, folder):
    built = experts(
        data, seeds, network=network, epochs=EPOCHS, batch_size=BATCH, optimizer=sgd(0.1, 0.9),
        augment=Strategy({"crop": Crop(shift=0.3)}), schedule=SCHEDULES[cut.schedule],
    )  # fmt: skip
    step, configure = built.training_step, built.configure_optimizers

    def training_step(batches, batch_idx):
        if built.global_step == cut.killed_at:
            os.killpg(0, signal.SIGKILL)
        return step(batches, batch_idx)

    def configure_optimizers():
        optimizers, schedulers = configure()
        interval = "step" if cut.schedule == "step" else "epoch"
        return optimizers, [s | {"interval": interval} for s in schedulers]

    def on_train_end():
        if built.global_rank == 0:
            schedules = [schedule.state_dict() for schedule in built._schedules]
            optimizer = built.optimizers().state_dict()
            torch.save({"optimizer": optimizer, "schedules": schedules}, folder / "end.pt")
            (folder / "decoded").write_text(str(sum(decoded)))

    built.training_step, built.configure_optimizers = training_step, configure_optimizers
    built.on_train_end = on_train_end
    return built


decoded = []


def count_decoded():
    crop = StreamedImages.crop

    def counted(images, positions, *arguments):
        decoded.append(len(positions))
        return crop(images, positions, *arguments)

    StreamedImages.crop = counted


def main(images, store, cut):
    # The ranks and workers of this process alone; in a fork of a server, the workers would start
    # another server, with all imports.
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)
    cut, store = Cut(**json.loads(cut)), Path(store)
    store.mkdir(exist_ok=True)
    crops = RandomCrops(smallest_area=0.3, flip=0.5) if cut.storage == "disk" else None
    data = image_data(
        ImageFolder(root=images, **{**UNSET, "size": 8}), mean=0.5, std=0.25, random_crops=crops,
        storage=cut.storage, workers=cut.workers, manifests=str(store),
    )  # fmt: skip
    count_decoded()
    if cut.every is not None:
        checkpoints_every(cut.every)
    settings = {"devices": cut.ranks, "strategy": "ddp_fork"} if cut.ranks > 1 else {}
    minutes = None if cut.every is None else 1e-9
    stages(checkpoint_minutes=minutes, **settings).train(
        lambda missing: module(data, [expert.seed for expert in missing], cut, store),
        expert_requests(3, 4),
        TrajectoryStore(store),
        at_once=2,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
