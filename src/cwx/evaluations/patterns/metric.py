"""The metric: how far what is attached to images leads to a class (ISCP, §4; I8)."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class PredictivePowerMetric(Metric):
    """PW, the rate at which images of other classes go to a class, over its clean accuracy.

        PW = ACC(f(x′_n + p_y), y) / ACC(f(x), y)

    with x′_n of other classes and x of class y. A power above 1 is legal.

    Args:
        target: y.

    >>> metric = PredictivePowerMetric(target=1)
    >>> labels = torch.tensor([0, 0, 2, 1, 1])
    >>> clean, attached = torch.tensor([0, 0, 2, 1, 2]), torch.tensor([1, 0, 2, 1, 1])
    >>> metric.update(attached, clean, labels)
    >>> round(metric.compute().item(), 3)  # a third of the others, over a half
    0.667
    """

    full_state_update = False
    higher_is_better = True
    hits: Tensor
    others: Tensor
    right: Tensor
    own: Tensor

    def __init__(self, *, target: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.target = target
        for name in ("hits", "others", "right", "own"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, attached: Tensor, clean: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            attached: the classes ``[n]`` that the images are taken for once they carry it; those
                of images of the target class do not matter.
            clean: the same without it; only those of images of the target class matter.
            labels: the true ones.
        """
        own = labels == self.target
        self.hits += (attached[~own] == self.target).sum()
        self.others += (~own).sum()
        self.right += (clean[own] == self.target).sum()
        self.own += own.sum()

    @property
    def success(self) -> Tensor:
        """The rate in 0-1 of the other classes' images; NaN if there were none."""
        return self.hits / self.others

    @property
    def accuracy(self) -> Tensor:
        """That of the class's own images as they are; NaN if there were none."""
        return self.right / self.own

    def compute(self) -> Tensor:
        """PW; NaN, or infinite, if the class is never recognised."""
        return self.success / self.accuracy
