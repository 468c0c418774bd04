"""What the training of a network minimises, batch by batch (CWX, §6.2; Dong et al., §3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.data.datamodule import Batch, ImageData
from cwx.functional.attacks import Attack, cross_entropy
from cwx.functional.rng import stream
from cwx.networks.eval_mode import evaluating

# What is random in a step.
AUGMENTATION, START, TARGETS = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training step of one network, of which each rank does a share.

    What is random is drawn for the whole batch, so that any number of ranks sees the same.

    Attributes:
        seed: of the network's training.
        number: the step's.
        total: the images of the whole batch.
        rank, ranks: whose share it is, of how many.
    """

    seed: int
    number: int
    total: int
    rank: int
    ranks: int

    def stream(self, purpose: int) -> torch.Generator:
        """What draws for one of the purposes above."""
        return stream(self.seed, self.number, purpose)

    @property
    def rows(self) -> slice:
        """Of the whole batch, those of this rank."""
        return slice(self.rank, None, self.ranks)


class Objective(Protocol):
    """What is asked of a network's answers to a batch."""

    def __call__(self, network: nn.Module, batch: Batch, step: Step) -> Tensor:
        """The loss, a sum over this rank's images, with gradients for the network's parameters.

        Args:
            network: in training mode.
            batch: this rank's, augmented.
        """


# Given a `network` of the kind that is to be trained, the `data` and the `attack`.
ObjectiveFactory = Callable[..., Objective]


class CrossEntropy:
    """Cross-entropy; with an attack, of the images that it perturbs alone (Madry et al. 2018,
    Eq 2.1).

    Args:
        attack: not targeted; none for ordinary training.

    Raises:
        ValueError: the attack is targeted.
    """

    def __init__(self, *, network: nn.Module, data: ImageData, attack: Attack | None) -> None:
        if attack is not None and attack.targeted:
            raise ValueError(
                "recipe.attack is targeted, and would make the right label easier: "
                "set recipe.attack.targeted to false"
            )
        self.data, self.attack = data, attack

    def __call__(self, network: nn.Module, batch: Batch, step: Step) -> Tensor:
        images = batch.images
        if self.attack is not None:
            images = perturbed(network, self.attack, batch, batch.labels, step, self.data)
        return F.cross_entropy(network(images), batch.labels, reduction="sum")


def perturbed(
    network: nn.Module, attack: Attack, batch: Batch, labels: Tensor, step: Step, data: ImageData
) -> Tensor:
    """The images of a batch under `attack` with `labels`, against the network in eval mode."""
    start = torch.zeros_like(batch.images)
    if attack.random_start:
        whole = attack.draw(step.total, data.image_shape, step.stream(START))
        start = whole[step.rows]
    # In training mode, the attack would move running statistics and meet other dropout.
    with evaluating(network):
        return attack(
            cross_entropy(network),
            batch.images,
            labels,
            normalization=data.normalization,
            start=start,
        )
