import logging

import lightning as L
import pytest
import torch
from hypothesis import settings

from cwx.data.module import ImageData
from cwx.data.sources import ImageSet, Splits
from cwx.methods.expert import Expert
from cwx.networks.mlp import MLP
from cwx.stages import Stages
from cwx.subject import Subject, build_network
from cwx.trajectories import TrajectoryStore

settings.register_profile("offline", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("offline")


@pytest.fixture(autouse=True)
def quiet_lightning():
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Blobs:
    """Three classes of 2x4x4 images, each bright in a place of its own: learnt in a few steps."""

    classes = ("left", "middle", "right")

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        return Splits(self._set(20, seed=0), self._set(8, seed=1), self.classes)

    def _set(self, per_class: int, seed: int) -> ImageSet:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(3).repeat_interleave(per_class)
        images = torch.randint(0, 100, (len(labels), 2, 4, 4), generator=generator)
        for column in range(3):
            images[labels == column, :, :, column] += 150
        return ImageSet(images.to(torch.uint8), labels)


def image_data() -> ImageData:
    data = ImageData(source=Blobs(), mean=0.5, std=[0.5, 0.25], batch_size=7)
    data.setup()
    return data


def small_mlp(**shape):
    return MLP(depth=1, width=6, **shape)


def sgd(rate: float, momentum: float = 0.0):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=momentum)


def trainer(**settings):
    return L.Trainer(
        accelerator="cpu",
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **settings,
    )


def expert(data, seed, *, epochs=4, network=small_mlp):
    return Expert(
        network=build_network(network, data, seed=seed),
        data=data,
        seed=seed,
        stage=f"expert-{seed}",
        epochs=epochs,
        batch_size=8,
        optimizer=sgd(0.1),
    )


@pytest.fixture(scope="session")
def data():
    return image_data()


@pytest.fixture(scope="session")
def subject(data, tmp_path_factory):
    """Two experts to explain and one held out, trained once."""
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    stages = Stages(trainer)
    experts = [
        stages.train(lambda seed=seed: expert(data, seed), {"seed": seed}, store)
        for seed in range(3)
    ]
    return Subject(
        data=data,
        factory=small_mlp,
        trajectories=experts[:2],
        held_out=experts[2:],
        judges={},
    )
