"""Constructing training images from the features of a network, one batch per step."""

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.functional.rng import stream
from cwx.methods.construction_algorithms import (
    ConstructionAlgorithm,
    ConstructionBatch,
    ConstructionPlan,
)
from cwx.storage.shards import Shards


class DatasetConstructor(L.LightningModule):
    """Constructs batches of training images; a batch is a function of its number.

    Images are rounded to bytes, the format of data sets. The metric of the algorithm is measured
    before and after rounding.

    Args:
        network: trained, frozen, in eval mode.
        data: the training images to replace.
        algorithm: the construction algorithm.
        plan: start images and labels of all training images.
        seed: seeds the random numbers of each batch.
        shards: assigns images to batches.
        stage: the name in logs.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        data: ImageData,
        algorithm: ConstructionAlgorithm,
        plan: ConstructionPlan,
        seed: int,
        shards: Shards,
        stage: str,
    ) -> None:
        super().__init__()
        self.network, self.algorithm, self.plan = network, algorithm, plan
        self.originals, self.normalization = data.splits.train.images, data.normalization
        self.seed, self.shards, self.stage = seed, shards, stage

    def predict_step(self, number: int) -> dict[str, Tensor]:
        """Construct batch `number`.

        Returns:
            ``images`` as bytes and ``labels``; ``moved``, the L2 distance of each image from its
            start image, pixels in 0-1; and the metric of the algorithm for the start image
            (``start``), the constructed image (``made``) and the image in bytes (``rounded``).
        """
        batch, normalization = self._batch(number), self.normalization
        constructed = self.algorithm.construct(
            self.network,
            batch,
            normalization=normalization,
            generator=stream(self.seed, number),
        )
        rounded = normalization.to_bytes(constructed)
        stages = {
            "start": batch.starts,
            "made": constructed,
            "rounded": normalization.from_bytes(rounded),
        }
        unit = normalization.denormalize
        return {
            "images": rounded,
            "labels": batch.labels,
            "moved": (unit(stages["rounded"]) - unit(batch.starts)).flatten(1).norm(dim=1),
            **{
                name: self.algorithm.measure(self.network, images, batch)
                for name, images in stages.items()
            },
        }

    def _batch(self, number: int) -> ConstructionBatch:
        rows = self.shards.rows(number)

        def normalised(indices: slice | Tensor) -> Tensor:
            return self.normalization.from_bytes(self.originals[indices].to(self.device))

        return ConstructionBatch(
            normalised(rows),
            normalised(self.plan.starts[rows]),
            self.plan.labels[rows].to(self.device, torch.int64),
        )
