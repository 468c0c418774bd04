"""Replacing the training images by constructed ones (Ilyas et al. 2019, §3; ISCP §4.4; I15).

D_R     a robust network's features of x, written into another image, labelled as x
D_NR    x, attacked until a standard network takes it for another class, and labelled so
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from cwx.data.datamodule import ImageData
from cwx.data.datasets.constructed import read_constructed
from cwx.data.splits import ImageSet
from cwx.functional.rng import stream
from cwx.methods.construction_algorithms import ConstructionAlgorithm
from cwx.methods.dataset_construction import Construct
from cwx.storage.shards import Shards
from cwx.storage.trajectories import Trajectory
from cwx.training.build import build_network, trained_network
from cwx.training.plan import Plan
from cwx.training.provider import Training
from cwx.training.stages import Factory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Constructed:
    """What a construction leaves.

    Attributes:
        images: to train on.
        metrics: how well it went, by name.
    """

    images: ImageSet
    metrics: Mapping[str, float] = field(default_factory=dict)


Construction = Callable[[ImageData, Training], Constructed | None]


class NoConstruction:
    """Training images as they are."""

    def __call__(self, data: ImageData, training: Training) -> None:
        return


class Generated:
    """Makes a set by a network that is trained, or found, for it, and keeps it in the store.

    Image i of the set stands in the place of training image i.

    Args:
        recipe: trains the network, one of the study's kind, on the study's images.
        algorithm: how its features are written into images.
        seed: of the network and of what the algorithm draws.
        batch_size: images at a time.
    """

    def __init__(
        self, *, recipe: Factory, algorithm: ConstructionAlgorithm, seed: int, batch_size: int
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"dataset_construction.batch_size is {batch_size}: give 1 or more")
        self.recipe, self.algorithm = recipe, algorithm
        self.seed, self.batch_size = seed, batch_size

    def __call__(self, data: ImageData, training: Training) -> Constructed:
        """The set, whole and the same on every rank.

        Raises:
            ValueError: the algorithm cannot be followed with these images or this kind of network.
        """
        # Both may refuse, so before a network is trained.
        self.algorithm.check(build_network(training.network, data, seed=self.seed))
        planned = self.algorithm.plan(data.splits.train, data.classes, stream(self.seed))
        settings = training.configuration["dataset_construction"]
        (source,) = training.by(self.recipe, settings["recipe"]).experts(
            "source", seeds=[self.seed], data=data
        )
        identity = {
            "dataset_construction": {k: v for k, v in settings.items() if k != "recipe"},
            "source": source.identity,
            "data": data.fingerprint(),
            "precision": training.configuration["precision"]["methods"],
        }
        shards = Shards(
            training.store.path(identity), count=len(planned.labels), size=self.batch_size
        )

        def build() -> Construct:
            return Construct(
                network=trained_network(training.network, data, source),
                data=data,
                algorithm=self.algorithm,
                planned=planned,
                seed=self.seed,
                shards=shards,
                stage="dataset_construction",
            )

        training.stages.make(build, shards, identity, training.store)
        return self._described(shards.read(), source, shards.folder)

    def _described(
        self, found: Mapping[str, Tensor], source: Trajectory, folder: Path
    ) -> Constructed:
        measured = self.algorithm.measured
        metrics = {
            f"dataset_construction/{measured}/{name}": found[name].double().mean().item()
            for name in ("start", "made", "rounded")
        }
        metrics["dataset_construction/moved"] = found["moved"].double().mean().item()
        # NaN where the network was imported.
        metrics["dataset_construction/source_accuracy"] = source.accuracy(source.epochs)
        line = "%d images constructed in %s, %s %.4g at the start, %.4g made, %.4g in bytes"
        log.info(line, len(found["labels"]), folder, measured, *list(metrics.values())[:3])
        return Constructed(ImageSet(found["images"], found["labels"]), metrics)


class Imported:
    """Takes a set that was made elsewhere, or by another study.

    Args:
        path: a folder of torch files as published by Ilyas et al., a folder that `Generated` left
            in a store, or a safetensors file with ``images`` and ``labels``.
    """

    def __init__(self, *, path: str) -> None:
        self.path = path

    def check(self, plan: Plan) -> None:
        if plan.data.corrupted.is_corrupted.any():
            raise ValueError(
                "dataset_construction=imported replaces all training images, also those that the "
                "corruption corrupted: choose corruption=none, or a construction that is made here"
            )

    def __call__(self, data: ImageData, training: Training) -> Constructed:
        """The set.

        Raises:
            ValueError: it cannot be read, or is not of the size and classes of the data.
        """
        images = read_constructed(Path(self.path))
        log.info("%d training images are imported from %s", len(images), self.path)
        return Constructed(images)
