"""The predictive power PW of a pattern or perturbation, as a metric (ISCP, §4)."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class PredictivePowerMetric(Metric):
    """PW: success rate on images of other classes, divided by the clean accuracy of the class.

        PW = ACC(f(x′_n + p_y), y) / ACC(f(x), y)

    with x′_n of other classes and x of class y. PW may be above 1.

    Args:
        target: y.

    >>> metric = PredictivePowerMetric(target=1)
    >>> labels = torch.tensor([0, 0, 2, 1, 1])
    >>> clean, attached = torch.tensor([0, 0, 2, 1, 2]), torch.tensor([1, 0, 2, 1, 1])
    >>> metric.update(attached, clean, labels)
    >>> round(metric.compute().item(), 3)  # (1/3) / (1/2)
    0.667
    """

    full_state_update = False
    higher_is_better = True
    hits: Tensor
    others: Tensor
    correct: Tensor
    own: Tensor

    def __init__(self, *, target: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.target = target
        for name in ("hits", "others", "correct", "own"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, attached: Tensor, clean: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            attached: predicted classes ``[n]`` of the images with the pattern; those of images of
                the target class are ignored.
            clean: predicted classes ``[n]`` without it; only those of images of the target class
                count.
            labels: the true classes ``[n]``.
        """
        own = labels == self.target
        self.hits += (attached[~own] == self.target).sum()
        self.others += (~own).sum()
        self.correct += (clean[own] == self.target).sum()
        self.own += own.sum()

    @property
    def success(self) -> Tensor:
        """Success rate in 0-1 on images of other classes; NaN without such images."""
        return self.hits / self.others

    @property
    def accuracy(self) -> Tensor:
        """Clean accuracy in 0-1 on images of the target class; NaN without such images."""
        return self.correct / self.own

    def compute(self) -> Tensor:
        """PW; NaN or infinite if the clean accuracy is 0."""
        return self.success / self.accuracy
