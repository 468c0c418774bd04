"""Small data sets, networks and trained experts for tests; they train in a few steps."""

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
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.build import build_network
from cwx.training.objectives import CrossEntropy
from cwx.training.precision import Precision, Precisions
from cwx.training.provider import Training
from cwx.training.stages import ExpertRequest, Stages


class Blobs:
    """Three classes of 2x4x4 images, each with one bright column: easy to learn."""

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


class BlobsWithoutTraining(Blobs):
    """Test images only, without those of the second class."""

    def load(self) -> Splits:
        splits = super().load()
        test = splits.test.at(splits.test.labels != 1)
        return replace(splits, train=splits.train.empty(), test=test)


def image_data(source: Blobs | None = None, **settings) -> ImageData:
    defaults = {"mean": 0.5, "std": [0.5, 0.25], "batch_size": 7, "per_class": None, "total": None}
    data = ImageData(source=source or Blobs(), **{**defaults, **settings})
    data.setup()
    return data


def small_mlp(**shape):
    return MLP(depth=1, width=6, **shape)


def small_convnet(**shape):
    return ConvNet(depth=1, width=5, norm=None, **shape)


def sgd(learning_rate: float, momentum: float = 0.0):
    return lambda parameters: torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum)


def trainer(**settings):
    return L.Trainer(
        accelerator="cpu",
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **settings,
    )


def stages(precisions=None, *, checkpoint_minutes=None, **settings):
    """Stages with `settings` for their trainers, by default in single precision."""
    single = Precision(trainer="32-true", float32_matmul="highest")
    return Stages(
        lambda **arguments: trainer(**arguments, **settings),
        precisions or Precisions(experts=single, methods=single),
        checkpoint_minutes=checkpoint_minutes,
    )


def expert_requests(*seeds):
    return [ExpertRequest(f"expert-{seed}", seed, {"seed": seed}) for seed in seeds]


def experts(data, seeds, *, network=small_mlp, networks=None, **settings):
    """The module that trains experts with these seeds in parallel, from `networks` if given."""
    defaults = {
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
        networks=networks or [build_network(network, data, seed=seed) for seed in seeds],
        data=data,
        seeds=seeds,
        stages=[f"expert-{seed}" for seed in seeds],
        **{**defaults, **settings},
    )


def train_experts(data, seeds, store, *, at_once=1, trainer_settings=None, **settings):
    """The trajectories of experts with these seeds, trained as in a study."""
    return stages(**(trainer_settings or {})).train(
        lambda missing: experts(data, [expert.seed for expert in missing], **settings),
        expert_requests(*seeds),
        store,
        at_once=at_once,
    )


class ColumnClassifier(torch.nn.Module):
    """Logit k is the mean brightness, with column k weighted five times the others."""

    class Brightness(torch.nn.Module):
        def forward(self, images):
            return (1 + 4 * torch.eye(3, 4)).view(1, 3, 1, 4) * (images + 3).mean(1, keepdim=True)

    def __init__(self, **shape):
        super().__init__()
        self.features = torch.nn.Sequential(self.Brightness())
        self.slope = torch.nn.Parameter(1 + torch.rand(()))

    def forward(self, images):
        return self.slope * self.features(images).mean((2, 3))


def training(store, configuration, *, recipe=None, network=small_mlp, at_once=1):
    """What a step of a study trains networks with; without a recipe none."""
    return Training(
        stages=stages(),
        network=network,
        store=TrajectoryStore(store),
        recipe=recipe,
        configuration=configuration,
        at_once=at_once,
    )
