"""What the training of a network minimises, batch by batch (CWX, §6.2; Dong et al., §3)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.data.datamodule import Batch, ImageData
from cwx.functional.attack_targets import others, shifts
from cwx.functional.attacks import Attack, cross_entropy
from cwx.functional.consistency_loss import consistency
from cwx.functional.rng import stream
from cwx.networks.eval_mode import evaluating
from cwx.networks.layer_outputs import layer_outputs
from cwx.networks.layers import feature_layer

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


class Consistency:
    """Cross-entropy of images and of adversarial ones, whose features are to stay those of the
    images (Dong et al., Eq 8-11; D8).

        α CE(f(x), y) + (1 − α) CE(f(G(x, y*)), y) + β ‖φ(x) − φ(G(x, y*))‖²

    G is the attack, in eval mode, towards a random other class y*; the gradient takes what it
    leaves as given and flows through both φ. Both kinds of images pass the network in one batch,
    by which batch norm knows both (Kurakin et al. 2017, §3).

    Args:
        attack: G, targeted.
        alpha: α, the weight of the images as they are, 0-1.
        beta: β, of the squared difference, a sum over features.
        layer: whose output is φ, by its name in the network; ``None`` for the last that gives
            maps of more than one place.

    Raises:
        ValueError: a setting is out of range, the attack is missing or not targeted, there is no
            other class, or no such layer.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        data: ImageData,
        attack: Attack | None,
        alpha: float,
        beta: float,
        layer: str | None,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"recipe.objective.alpha is {alpha}: give a weight in 0-1")
        if not 0 <= beta < math.inf:
            raise ValueError(f"recipe.objective.beta is {beta}: give 0 or more, finite")
        if attack is None or not attack.targeted:
            found = "none" if attack is None else "not targeted"
            raise ValueError(
                f"recipe.attack is {found}, and consistency is between images and those taken "
                "to another class: set attack@recipe.attack=targeted_fgs, or "
                "recipe.attack.targeted to true"
            )
        if len(data.classes) < 2:
            raise ValueError(
                f"consistency training takes images to another class, and the data have "
                f"{len(data.classes)}: give data of 2 classes or more"
            )
        self.data, self.attack, self.alpha, self.beta = data, attack, alpha, beta
        setting = "recipe.objective.layer"
        self.layer = feature_layer(network, data.image_shape, layer, setting)

    def __call__(self, network: nn.Module, batch: Batch, step: Step) -> Tensor:
        images = torch.cat([batch.images, self._adversarial(network, batch, step)])
        # The network itself goes by no name.
        with layer_outputs(network, [self.layer, ""]) as outputs:
            given = outputs(images)
        clean, attacked = given[""].tensor_split(2)
        features, attacked_features = given[self.layer].tensor_split(2)
        losses = consistency(
            clean,
            attacked,
            features,
            attacked_features,
            batch.labels,
            alpha=self.alpha,
            beta=self.beta,
        )
        return losses.sum()

    def _adversarial(self, network: nn.Module, batch: Batch, step: Step) -> Tensor:
        classes = len(self.data.classes)
        drawn = shifts(step.total, classes, step.stream(TARGETS))[step.rows]
        targets = others(batch.labels, drawn, classes)
        return perturbed(network, self.attack, batch, targets, step, self.data)


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
