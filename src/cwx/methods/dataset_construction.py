"""Constructing training images from a network's features, a batch a step."""

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.functional.rng import stream
from cwx.methods.construction_algorithms import ConstructionAlgorithm, Planned, Task
from cwx.storage.shards import Shards


class Construct(L.LightningModule):
    """Makes the batches that it is asked for; each depends on its number alone.

    Images become bytes, as data sets are kept: whether they are still what was to be made is
    measured before and after.

    Args:
        network: trained, frozen, in eval mode.
        data: the images that are replaced.
        algorithm: how.
        planned: of all of them.
        seed: of what is random in a batch.
        shards: which images are in a batch.
        stage: its name in logs.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        data: ImageData,
        algorithm: ConstructionAlgorithm,
        planned: Planned,
        seed: int,
        shards: Shards,
        stage: str,
    ) -> None:
        super().__init__()
        self.network, self.algorithm, self.planned = network, algorithm, planned
        self.originals, self.normalization = data.splits.train.images, data.normalization
        self.seed, self.shards, self.stage = seed, shards, stage

    def predict_step(self, number: int) -> dict[str, Tensor]:
        """Batch `number`.

        Returns:
            ``images`` as bytes and ``labels``; ``moved``, how far each is from its start in L2 on
            the unit scale; and what the algorithm measures of the ``start``, of what was ``made``, and
            of that ``rounded`` to bytes.
        """
        task, normalization = self._task(number), self.normalization
        made = self.algorithm.make(
            self.network,
            task,
            normalization=normalization,
            generator=stream(self.seed, number),
        )
        rounded = normalization.to_bytes(made)
        stages = {"start": task.starts, "made": made, "rounded": normalization.from_bytes(rounded)}
        unit = normalization.denormalize
        return {
            "images": rounded,
            "labels": task.labels,
            "moved": (unit(stages["rounded"]) - unit(task.starts)).flatten(1).norm(dim=1),
            **{
                name: self.algorithm.measure(self.network, images, task)
                for name, images in stages.items()
            },
        }

    def _task(self, number: int) -> Task:
        rows = self.shards.rows(number)

        def normalised(chosen: slice | Tensor) -> Tensor:
            return self.normalization.from_bytes(self.originals[chosen].to(self.device))

        return Task(
            normalised(rows),
            normalised(self.planned.starts[rows]),
            self.planned.labels[rows].to(self.device, torch.int64),
        )
