"""Replacing the training images by constructed ones (Ilyas et al. 2019, §3; ISCP §4.4).

D_R     another image whose features in a robust network match those of x; the label of x
D_NR    as D_R, with the features of a naturally trained network
D_rand, D_det   x, attacked towards another class of that network; the label of that class
"""

import logging
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from torch import Tensor

from cwx.data.datamodule import ImageData
from cwx.data.datasets.constructed import read_constructed
from cwx.data.splits import ImageSet
from cwx.evaluations.predictions import accuracy_over_ranks
from cwx.functional.rng import stream
from cwx.methods.construction_algorithms import ConstructionAlgorithm
from cwx.methods.dataset_construction import DatasetConstructor
from cwx.storage.shards import Shards
from cwx.training.build import build_network, trained_network
from cwx.training.own_code import own_code
from cwx.training.plan import Plan
from cwx.training.provider import Training
from cwx.training.ranks import Ranks
from cwx.training.stages import Factory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConstructedDataset:
    """The result of a dataset construction.

    Attributes:
        images: the constructed training images.
        metrics: metrics of the construction, by name.
    """

    images: ImageSet
    metrics: Mapping[str, float] = field(default_factory=dict)


Construction = Callable[[ImageData, Training], ConstructedDataset | None]


class NoConstruction:
    """Keeps the original training images."""

    def __call__(self, data: ImageData, training: Training) -> None:
        return


class GenerateDataset:
    """Constructs a dataset with a network trained for it, and saves it in the store.

    The network is read from the store if it is there. Image i of the set replaces training image i.

    Args:
        recipe: trains a network of the explained kind on the study's images.
        algorithm: writes the network's features into images.
        seed: of the network and the random numbers of the algorithm.
        batch_size: images per batch.

    Raises:
        ValueError: `batch_size` is below 1.
    """

    def __init__(
        self,
        *,
        recipe: Factory,
        algorithm: ConstructionAlgorithm,
        seed: Annotated[int, ">= 0, < 2**63"],
        batch_size: Annotated[int, ">= 1"],
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"dataset_construction.batch_size is {batch_size}: give 1 or more")
        self.recipe, self.algorithm = recipe, algorithm
        self.seed, self.batch_size = seed, batch_size

    def __call__(self, data: ImageData, training: Training) -> ConstructedDataset:
        """The complete constructed set, the same on every rank.

        Raises:
            ValueError: the algorithm cannot use these images or this kind of network.
        """
        # Both may raise: before a network is trained.
        network = build_network(training.network, data, seed=self.seed)
        self.algorithm.check(network, data.image_shape)
        plan = self.algorithm.plan(data.splits.train, data.classes, stream(self.seed))
        settings = training.configuration["dataset_construction"]
        source_training = training.with_recipe(
            self.recipe, settings["recipe"], part="dataset_construction"
        )
        (source,) = source_training.experts("source", seeds=[self.seed], data=data)
        own = {k: v for k, v in settings.items() if k != "recipe"}
        code = own_code([own, training.configuration["network"]])
        identity = {
            **({"code": code} if code else {}),
            "dataset_construction": own,
            "source": source.identity,
            "data": data.fingerprint(),
            "precision": training.configuration["precision"]["methods"],
        }
        shards = Shards(training.store.path(identity), count=len(plan.labels), size=self.batch_size)

        def build() -> DatasetConstructor:
            return DatasetConstructor(
                network=trained_network(training.network, data, source),
                data=data,
                algorithm=self.algorithm,
                plan=plan,
                seed=self.seed,
                shards=shards,
                stage="dataset_construction",
            )

        training.stages.write_shards(build, shards, identity, training.store)
        # On the present test images: the store may have the accuracy on others.
        trained = trained_network(training.network, data, source).to(training.stages.device)
        accuracy = accuracy_over_ranks(data, trained, data.splits.test, Ranks.running())
        return self._load_result(shards.read(), accuracy, shards.folder)

    def _load_result(
        self, tensors: Mapping[str, Tensor], accuracy: float, folder: Path
    ) -> ConstructedDataset:
        metric = self.algorithm.metric_name
        metrics = {
            f"dataset_construction/{metric}/{name}": tensors[name].double().mean().item()
            for name in ("start", "made", "rounded")
        }
        metrics["dataset_construction/moved"] = tensors["moved"].double().mean().item()
        metrics["dataset_construction/source_accuracy"] = accuracy
        line = "%d images constructed in %s: mean %s %.4g at start, %.4g constructed, %.4g in bytes"
        log.info(line, len(tensors["labels"]), folder, metric, *list(metrics.values())[:3])
        return ConstructedDataset(ImageSet(tensors["images"], tensors["labels"]), metrics)


class ImportDataset:
    """Imports a constructed dataset from files.

    Args:
        path: a folder of torch files as published by Ilyas et al., a folder that `GenerateDataset`
            wrote into a store, or a safetensors file with ``images`` and ``labels``.
    """

    def __init__(self, *, path: str) -> None:
        self.path = path

    def check(self, plan: Plan) -> None:
        if plan.data.corrupted.is_corrupted.any():
            raise ValueError(
                "dataset_construction=imported replaces all training images, including the "
                "corrupted ones: choose corruption=none, or a dataset_construction that uses the "
                "corrupted images"
            )

    def __call__(self, data: ImageData, training: Training) -> ConstructedDataset:
        """The imported set.

        Raises:
            ValueError: the files cannot be read, or do not fit the data.
        """
        images = read_constructed(Path(self.path))
        try:
            copy(data).train_on(images)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        log.info("%d training images imported from %s", len(images), self.path)
        return ConstructedDataset(images)
