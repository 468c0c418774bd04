"""How far classes are from each other in meaning (Dong et al., §2.2.1; D4)."""

from collections.abc import Callable

import torch
from torch import Tensor

from cwx.data.module import ImageData

# From data to distances [classes, classes], symmetric, 0 on the diagonal.
Taxonomy = Callable[[ImageData], Tensor]


class Flat:
    """Every class is as far from every other as leaves of one parent: 2 steps."""

    def __call__(self, data: ImageData) -> Tensor:
        count = len(data.classes)
        return 2 * (1 - torch.eye(count, dtype=torch.float64))
