"""Training objectives: the loss of a network on a batch (CWX, §6.2; Dong et al., §3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.data.batches import Batch
from cwx.data.datamodule import ImageData
from cwx.functional.attacks import Attack, cross_entropy
from cwx.functional.rng import stream
from cwx.networks.eval_mode import eval_mode

# Keys of the random streams of a step.
AUGMENTATION, START, TARGETS, NETWORK = 1, 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training step of one network; each rank processes a part of the batch.

    Random numbers are drawn for the whole batch, so that the result does not depend on the number
    of ranks; except for those that the network draws.

    Attributes:
        seed: of the network's training.
        number: the number of the step.
        total: the number of images in the whole batch.
        rank: the index of this rank.
        ranks: the number of ranks.
    """

    seed: int
    number: int
    total: int
    rank: int
    ranks: int

    def stream(self, purpose: int) -> torch.Generator:
        """The random generator for ``AUGMENTATION``, ``START`` or ``TARGETS``."""
        return stream(self.seed, self.number, purpose)

    def network_stream(self) -> torch.Generator:
        """The random generator of the network itself, such as for dropout, on this rank.

        A network draws for the images that it gets: here the result depends on the number of ranks.
        """
        return stream(self.seed, self.number, NETWORK, self.rank)

    @property
    def rows(self) -> slice:
        """The rows of the whole batch that this rank processes."""
        return slice(self.rank, None, self.ranks)


class Objective(Protocol):
    """Computes the loss of a network on a batch."""

    def __call__(self, network: nn.Module, batch: Batch, step: Step) -> Tensor:
        """The loss, summed over the images of this rank, differentiable in the parameters.

        Args:
            network: in training mode.
            batch: the augmented images of this rank.
            step: the training step.
        """


# Keyword arguments: a `network` of the kind to train, the `data` and the `attack`.
ObjectiveFactory = Callable[..., Objective]


class CrossEntropy:
    """Cross-entropy of the images; with an attack, of the adversarial images only (Madry et al.
    2018, Eq 2.1).

    Args:
        attack: an untargeted attack; ``None`` for standard training.

    Raises:
        ValueError: the attack is targeted.
    """

    def __init__(self, *, network: nn.Module, data: ImageData, attack: Attack | None) -> None:
        if attack is not None and attack.targeted:
            raise ValueError(
                "recipe.attack is targeted, and would move images towards the true label: "
                "set recipe.attack.targeted to false"
            )
        self.data, self.attack = data, attack

    def __call__(self, network: nn.Module, batch: Batch, step: Step) -> Tensor:
        images = batch.images
        if self.attack is not None:
            images = perturb(network, self.attack, batch, batch.labels, step, self.data)
        return F.cross_entropy(network(images), batch.labels, reduction="sum")


def perturb(
    network: nn.Module, attack: Attack, batch: Batch, labels: Tensor, step: Step, data: ImageData
) -> Tensor:
    """The adversarial images of a batch for `labels`, with the network in eval mode.

    Args:
        labels: the true labels of an untargeted attack, the target labels of a targeted one.
    """
    start = torch.zeros_like(batch.images)
    if attack.random_start:
        starts = attack.draw(step.total, data.image_shape, step.stream(START))
        start = starts[step.rows]
    # In training mode, the attack would change running statistics and sample dropout.
    with eval_mode(network):
        return attack(
            cross_entropy(network),
            batch.images,
            labels,
            normalization=data.normalization,
            start=start,
        )
