"""How one network's features are written into images (Ilyas et al. 2019, §3; ISCP §4.4; I15)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cwx.data.splits import ImageSet
from cwx.functional.attacks import Attack, cross_entropy
from cwx.functional.feature_matching import match_features
from cwx.functional.images import Normalization
from cwx.functional.label_noise import Noise
from cwx.networks.layer_inputs import find_layer, layer_inputs


class Planned(NamedTuple):
    """What a algorithm makes of each training image: the index that it begins from, and its label.

    Both are int64 ``[n]``.
    """

    starts: Tensor
    labels: Tensor


class Task(NamedTuple):
    """A batch: normalised originals and starts ``[n, C, H, W]``, and the new labels ``[n]``."""

    images: Tensor
    starts: Tensor
    labels: Tensor


class ConstructionAlgorithm(Protocol):
    """Constructs training images by a network, in eval mode, image by image."""

    @property
    def measured(self) -> str:
        """What `measure` tells, as a name."""

    def check(self, network: nn.Module) -> None:
        """Refuse a network that it cannot ask.

        Raises:
            ValueError: with the remedy.
        """

    def plan(self, images: ImageSet, classes: Sequence[str], generator: torch.Generator) -> Planned:
        """Draw for all images at once, so that batches do not depend on each other."""

    def make(
        self,
        network: nn.Module,
        task: Task,
        *,
        normalization: Normalization,
        generator: torch.Generator,
    ) -> Tensor:
        """The images, normalised ``[n, C, H, W]``; drawn from `generator` what is random."""

    def measure(self, network: nn.Module, images: Tensor, task: Task) -> Tensor:
        """How far normalised images are what was to be made, one float an image ``[n]``."""


@dataclass(frozen=True, kw_only=True)
class FeatureMatching:
    """Another random image, moved until the network sees x in it, and labelled as x.

        min ‖g(x') − g(x)‖₂        over x' in [0, 1], from x' = x₀ ≠ x        (Ilyas et al., Eq 6)

    What g ignores in x is not in x': with a robust network, its robust features alone.

    Attributes:
        layer: whose inputs are g; ``None`` for the last linear layer.
        step: how far an image moves in a step, in L2 on the unit scale.
        steps: their number.
    """

    layer: str | None
    step: float
    steps: int

    def __post_init__(self) -> None:
        for name in ("step", "steps"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"dataset_construction.algorithm.{name} is {getattr(self, name)}: give 0 or more"
                )

    @property
    def measured(self) -> str:
        return "distance"

    def check(self, network: nn.Module) -> None:
        find_layer(network, self.layer)

    def plan(self, images: ImageSet, classes: Sequence[str], generator: torch.Generator) -> Planned:
        """Each begins from any other image."""
        count = len(images)
        if count < 2:
            raise ValueError(
                f"features are matched from another image, and there is {count} training image: "
                "give more, or choose dataset_construction=none"
            )
        drawn = torch.randint(count - 1, (count,), generator=generator)
        # Those from its own index on move up by one, and its own is not among them.
        return Planned(drawn + (drawn >= torch.arange(count)), images.labels)

    def make(
        self,
        network: nn.Module,
        task: Task,
        *,
        normalization: Normalization,
        generator: torch.Generator,
    ) -> Tensor:
        with layer_inputs(network, self.layer) as features:
            with torch.no_grad():
                wanted = features(task.images)
            return match_features(
                features,
                task.starts,
                wanted,
                normalization=normalization,
                step=self.step,
                steps=self.steps,
            )

    @torch.no_grad()
    def measure(self, network: nn.Module, images: Tensor, task: Task) -> Tensor:
        """‖g(x') − g(x)‖₂."""
        with layer_inputs(network, self.layer) as features:
            apart: Tensor = (features(images) - features(task.images)).float().norm(dim=1)
            return apart


@dataclass(frozen=True, kw_only=True)
class TargetedAttack:
    """The image itself, attacked until the network takes it for another class, and labelled so.

    What ties it to its label are features that the attack changes: not robust ones.

    Attributes:
        attack: targeted.
        target: draws the class that an image is taken to, from its own.

    Raises:
        ValueError: the attack is not targeted.
    """

    attack: Attack
    target: Noise

    def __post_init__(self) -> None:
        if not self.attack.targeted:
            raise ValueError(
                "dataset_construction.algorithm.attack is not targeted, and would leave the new label "
                "instead of reaching it: set dataset_construction.algorithm.attack.targeted to true"
            )

    @property
    def measured(self) -> str:
        return "success"

    def check(self, network: nn.Module) -> None:
        return

    def plan(self, images: ImageSet, classes: Sequence[str], generator: torch.Generator) -> Planned:
        """Each begins from itself."""
        labels = self.target.draw(images.labels, classes, generator)
        return Planned(torch.arange(len(images)), labels)

    def make(
        self,
        network: nn.Module,
        task: Task,
        *,
        normalization: Normalization,
        generator: torch.Generator,
    ) -> Tensor:
        count, channels, height, width = task.starts.shape
        return self.attack(
            cross_entropy(network),
            task.starts,
            task.labels,
            normalization=normalization,
            start=self.attack.draw(count, (channels, height, width), generator),
        )

    @torch.no_grad()
    def measure(self, network: nn.Module, images: Tensor, task: Task) -> Tensor:
        """1 where the network says the new label, 0 elsewhere."""
        reached: Tensor = network(images).argmax(1) == task.labels
        return reached.float()
