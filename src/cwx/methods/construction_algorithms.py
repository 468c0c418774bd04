"""Algorithms that write the features of a network into images (Ilyas et al. 2019; ISCP §4.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cwx.data.splits import ImageSet
from cwx.functional.attacks import Attack, cross_entropy
from cwx.functional.feature_matching import match_features
from cwx.functional.images import Normalization
from cwx.functional.label_noise import Noise
from cwx.networks.eval_mode import eval_mode
from cwx.networks.finite_logits import finite_logits
from cwx.networks.layer_inputs import layer_inputs

# The setting of `FeatureMatching.layer`.
LAYER = "dataset_construction.algorithm.layer"


class ConstructionPlan(NamedTuple):
    """The start image and the new label of each training image.

    Attributes:
        starts: index of the training image to start from, int64 ``[n]``.
        labels: the new labels, int64 ``[n]``.
    """

    starts: Tensor
    labels: Tensor


class ConstructionBatch(NamedTuple):
    """A batch of images to construct.

    Attributes:
        images: the normalised originals ``[n, C, H, W]``.
        starts: the normalised start images ``[n, C, H, W]``.
        labels: the new labels ``[n]``.
    """

    images: Tensor
    starts: Tensor
    labels: Tensor


class ConstructionAlgorithm(Protocol):
    """Constructs each training image independently with a network in eval mode."""

    @property
    def metric_name(self) -> str:
        """The name of the metric that `measure` computes."""

    def check(self, network: nn.Module, image_shape: Sequence[int]) -> None:
        """Refuse a network, for images (C, H, W), that the algorithm cannot use.

        Raises:
            ValueError: the network lacks a layer that the algorithm needs.
        """

    def plan(
        self, images: ImageSet, classes: Sequence[str], generator: torch.Generator
    ) -> ConstructionPlan:
        """Draw start images and labels for all images at once, so that batches are independent."""

    def construct(
        self,
        network: nn.Module,
        batch: ConstructionBatch,
        *,
        normalization: Normalization,
        generator: torch.Generator,
    ) -> Tensor:
        """The constructed images, normalised ``[n, C, H, W]``; random numbers come from
        `generator`.
        """

    def measure(self, network: nn.Module, images: Tensor, batch: ConstructionBatch) -> Tensor:
        """How well normalised images meet the goal of the algorithm, one float per image
        ``[n]``.
        """


@dataclass(frozen=True, kw_only=True)
class FeatureMatching:
    """Perturbs another random image x₀ until its features match those of x; the label is that of x.

        min ‖g(x') − g(x)‖₂        over x' in [0, 1], from x' = x₀ ≠ x        (Ilyas et al., Eq 6)

    x' contains only the features of x that g uses: with a robust network, only robust features.

    Attributes:
        layer: the layer whose input is g; ``None`` for the last linear layer.
        step: L2 length of an update, pixels in 0-1.
        steps: number of updates.
    """

    layer: str | None
    step: Annotated[float, "> 0"]
    steps: Annotated[int, ">= 1"]

    def __post_init__(self) -> None:
        for name in ("step", "steps"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"dataset_construction.algorithm.{name} is {getattr(self, name)}: give 0 or "
                    "more"
                )

    @property
    def metric_name(self) -> str:
        return "distance"

    def check(self, network: nn.Module, image_shape: Sequence[int]) -> None:
        with (
            eval_mode(network),
            torch.no_grad(),
            layer_inputs(network, self.layer, LAYER) as features,
        ):
            features(torch.zeros(1, *image_shape, device=next(network.parameters()).device))

    def plan(
        self, images: ImageSet, classes: Sequence[str], generator: torch.Generator
    ) -> ConstructionPlan:
        """Start each image from a random other image."""
        count = len(images)
        if count < 2:
            raise ValueError(
                "feature matching needs another start image, but the number of training images is "
                f"{count}: give 2 or more, or choose dataset_construction=none"
            )
        drawn = torch.randint(count - 1, (count,), generator=generator)
        # Skip the image's own index.
        return ConstructionPlan(drawn + (drawn >= torch.arange(count)), images.labels)

    def construct(
        self,
        network: nn.Module,
        batch: ConstructionBatch,
        *,
        normalization: Normalization,
        generator: torch.Generator,
    ) -> Tensor:
        with layer_inputs(network, self.layer, LAYER) as features:
            with torch.no_grad():
                target_features = features(batch.images)
            return match_features(
                features,
                batch.starts,
                target_features,
                normalization=normalization,
                step=self.step,
                steps=self.steps,
            )

    @torch.no_grad()
    def measure(self, network: nn.Module, images: Tensor, batch: ConstructionBatch) -> Tensor:
        """‖g(x') − g(x)‖₂."""
        with layer_inputs(network, self.layer, LAYER) as features:
            distance: Tensor = (features(images) - features(batch.images)).float().norm(dim=1)
            return distance


@dataclass(frozen=True, kw_only=True)
class TargetedAttack:
    """Attacks each image towards another class, and labels the result as that class.

    The features that link the image to its new label are those that the attack changes: non-robust
    features.

    Attributes:
        attack: a targeted attack.
        target: draws the target class of an image from its label.

    Raises:
        ValueError: the attack is not targeted.
    """

    attack: Attack
    target: Noise

    def __post_init__(self) -> None:
        if not self.attack.targeted:
            raise ValueError(
                "dataset_construction.algorithm.attack is not targeted, and would move images away "
                "from the new label: set dataset_construction.algorithm.attack.targeted to true"
            )

    @property
    def metric_name(self) -> str:
        return "success"

    def check(self, network: nn.Module, image_shape: Sequence[int]) -> None:
        return

    def plan(
        self, images: ImageSet, classes: Sequence[str], generator: torch.Generator
    ) -> ConstructionPlan:
        """Start each image from itself."""
        labels = self.target.draw(images.labels, classes, generator)
        return ConstructionPlan(torch.arange(len(images)), labels)

    def construct(
        self,
        network: nn.Module,
        batch: ConstructionBatch,
        *,
        normalization: Normalization,
        generator: torch.Generator,
    ) -> Tensor:
        count, channels, height, width = batch.starts.shape
        return self.attack(
            cross_entropy(network),
            batch.starts,
            batch.labels,
            normalization=normalization,
            start=self.attack.draw(count, (channels, height, width), generator),
        )

    @torch.no_grad()
    def measure(self, network: nn.Module, images: Tensor, batch: ConstructionBatch) -> Tensor:
        """1 where the network predicts the new label, 0 elsewhere."""
        reached: Tensor = finite_logits(network(images)).argmax(1) == batch.labels
        return reached.float()
