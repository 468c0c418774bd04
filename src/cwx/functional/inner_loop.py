"""The settings of training on S: steps, learning rate, batches, augmentation (CWX, Eq 2-3)."""

import math
from typing import Annotated

import torch
from torch import Tensor

from cwx.functional.augmentation import Strategy
from cwx.functional.rng import stream
from cwx.functional.unroll import Descent


class Inner:
    """The settings of the inner loop, for distillation and for evaluations that train on S.

    Args:
        steps: M, number of steps.
        learning_rate: η_θ, or its initial value if it is learned; ``None`` to derive it from the
            experts and the initial S (`cwx.functional.inner_learning_rate`).
        momentum: μ, in [0, 1).
        batch_size: images per step, from a new random permutation of S per epoch; null: all of S
            in every step.
        augment: draws the augmentation of each step's batch.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        steps: Annotated[int, ">= 1"],
        learning_rate: Annotated[float, "> 0"] | None,
        momentum: Annotated[float, ">= 0, < 1"],
        batch_size: Annotated[int, ">= 1"] | None,
        augment: Strategy,
    ) -> None:
        if learning_rate is not None and learning_rate <= 0:
            raise ValueError(f"inner.learning_rate is {learning_rate}: give a rate above 0")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"inner.batch_size is {batch_size}: give 1 or more, or null for all")
        self.steps, self.learning_rate, self.momentum = steps, learning_rate, momentum
        self.batch_size, self.augment = batch_size, augment
        # Checks the settings now, before any training.
        self.descent(torch.empty(0, dtype=torch.long), key=())

    def descent(self, labels: Tensor, key: tuple[int, ...], steps: int | None = None) -> Descent:
        """The descent on images with `labels` ``[n]``; all random draws are functions of `key`.

        Args:
            steps: the number of steps; ``None`` for M.
        """

        def batch(images: Tensor, step: int) -> tuple[Tensor, Tensor]:
            indices = self._indices(len(labels), step, key)
            if indices is not None:
                indices = indices.to(images.device)
                images, batch_labels = images[indices], labels[indices]
            else:
                batch_labels = labels
            augmentation = self.augment.draw(len(images), stream(*key, 1, step))
            return augmentation(images), batch_labels

        steps = self.steps if steps is None else steps
        return Descent(steps=steps, momentum=self.momentum, batch=batch)

    def _indices(self, count: int, step: int, key: tuple[int, ...]) -> Tensor | None:
        if self.batch_size is None or self.batch_size >= count:
            return None
        steps_per_epoch = math.ceil(count / self.batch_size)
        order = torch.randperm(count, generator=stream(*key, 0, step // steps_per_epoch))
        return torch.split(order, self.batch_size)[step % steps_per_epoch]
