"""Training on real images in as few steps as on S: the ceiling of fidelity."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.functional.augmentation import Strategy
from cwx.functional.images import Normalization
from cwx.functional.rng import stream
from cwx.functional.unroll import Descent


class RealData:
    """M steps of gradient descent on batches of real training images.

    Args:
        images: the training images of the experts.
        normalization: of the network's input.
        batch_size: images per step, at most all.
        augment: augmentation of each batch, as in the training of the experts; ``None`` for none.
    """

    def __init__(
        self,
        *,
        images: ImageSet,
        normalization: Normalization,
        batch_size: int,
        augment: Strategy | None,
    ) -> None:
        self.images, self.normalization = images, normalization
        self.batch_size = min(batch_size, len(images))
        self.augment = augment or Strategy({})

    def descent(self, steps: int, key: tuple[int, ...]) -> Descent:
        """The descent; its batches are functions of `key`, drawn without replacement per epoch.

        They ignore the values of the images of the descent, and lie on their device.
        """

        def batch(empty: Tensor, step: int) -> tuple[Tensor, Tensor]:
            per_epoch = len(self.images) // self.batch_size
            order = torch.randperm(len(self.images), generator=stream(*key, 0, step // per_epoch))
            first = step % per_epoch * self.batch_size
            indices = order[first : first + self.batch_size]
            images = self.normalization.from_bytes(self.images.images[indices]).to(empty.device)
            augmentation = self.augment.draw(len(images), stream(*key, 1, step))
            return augmentation(images), self.images.labels[indices].to(empty.device)

        return Descent(steps=steps, momentum=0.0, batch=batch)


def lowest(value: Callable[[float], float], start: float, *, doublings: int = 12) -> float:
    """The argument of the lowest `value` among start · 2^(i/2), by a search from `start`.

    Doubles or halves the argument until the value increases, then tries half a step on both sides.
    A value that is not finite counts as infinite.

    >>> lowest(lambda x: (x - 6) ** 2, 1.0)
    5.656854249492381
    """
    values: dict[int, float] = {}

    def at(half_steps: int) -> float:
        if half_steps not in values:
            result = value(start * 2 ** (half_steps / 2))
            values[half_steps] = result if math.isfinite(result) else math.inf
        return values[half_steps]

    best = 0
    for direction in (2, -2):
        while abs(best + direction) <= 2 * doublings and at(best + direction) < at(best):
            best += direction
    best = min((best, best - 1, best + 1), key=at)
    return start * 2 ** (best / 2)
