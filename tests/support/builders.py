"""Small data, networks and trained experts for tests, learnt in a few steps."""

from dataclasses import replace

import lightning as L
import torch

from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet, Splits
from cwx.functional.augmentation import Strategy
from cwx.methods.expert import Expert
from cwx.networks.convnet import ConvNet
from cwx.networks.mlp import MLP
from cwx.storage.recording import Recording
from cwx.training.build import build_network
from cwx.training.objectives import CrossEntropy
from cwx.training.precision import Precision, Precisions
from cwx.training.stages import Stages, Wanted


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


class BlobsToTest(Blobs):
    """No training images, and none of the second class."""

    def load(self) -> Splits:
        whole = super().load()
        shown = whole.test.labels != 1
        test = ImageSet(whole.test.images[shown], whole.test.labels[shown])
        return replace(whole, train=whole.train.none(), test=test)


def image_data(source: Blobs | None = None, **settings) -> ImageData:
    chosen = {"mean": 0.5, "std": [0.5, 0.25], "batch_size": 7, "per_class": None, **settings}
    data = ImageData(source=source or Blobs(), **chosen)
    data.setup()
    return data


def small_mlp(**shape):
    return MLP(depth=1, width=6, **shape)


def small_convnet(**shape):
    return ConvNet(depth=1, width=5, norm=None, **shape)


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


def stages(precisions=None, **settings):
    """Stages, by default in single precision, whose trainers take `settings`."""
    plain = Precision(trainer="32-true", float32_matmul="highest")
    return Stages(
        lambda **given: trainer(**given, **settings),
        precisions or Precisions(experts=plain, methods=plain),
    )


def wanted(*seeds):
    return [Wanted(f"expert-{seed}", seed, {"seed": seed}) for seed in seeds]


def experts(data, seeds, *, network=small_mlp, **settings):
    """The module that trains these seeds side by side."""
    chosen = {
        "epochs": 4,
        "batch_size": 8,
        "augment": Strategy({}),
        "attack": None,
        "objective": CrossEntropy,
        "optimizer": sgd(0.1),
        "schedule": None,
        "channels_last": False,
        "recording": Recording(epochs=None, dtype="float32"),
    }
    return Expert(
        networks=[build_network(network, data, seed=seed) for seed in seeds],
        data=data,
        seeds=seeds,
        stages=[f"expert-{seed}" for seed in seeds],
        **{**chosen, **settings},
    )


def trained(data, seeds, store, *, at_once=1, trainer_settings=None, **settings):
    """Their trajectories, trained as a study does."""
    return stages(**(trainer_settings or {})).train(
        lambda missing: experts(data, [expert.seed for expert in missing], **settings),
        wanted(*seeds),
        store,
        at_once=at_once,
    )


class Looking(torch.nn.Module):
    """Logit k is the mean brightness, that of column k counting five times as much."""

    class Brightness(torch.nn.Module):
        def forward(self, images):
            return (1 + 4 * torch.eye(3, 4)).view(1, 3, 1, 4) * (images + 3).mean(1, keepdim=True)

    def __init__(self, **shape):
        super().__init__()
        self.features = torch.nn.Sequential(self.Brightness())
        self.slope = torch.nn.Parameter(1 + torch.rand(()))

    def forward(self, images):
        return self.slope * self.features(images).mean((2, 3))
