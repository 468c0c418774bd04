"""What a network attends to in images of a class, as patterns (ISCP, App. F, Figure 11; I21)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cwx.data.canvases import choose_canvases, chosen_classes, test_logits
from cwx.explanations.patterns import Patterns
from cwx.functional.canvas_sampling import Canvas
from cwx.networks.gradcam import attention_of
from cwx.networks.layers import attended_layer
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class GradCamRegions:
    """Masks that are the Grad-CAM maps of a class on canvases of it, each scaled to reach 1.

    Nothing is optimised, and no image is searched on: it is no LightningModule.

    Args:
        subject: the data and the networks.
        seed: of random canvases.
        explains: the kind of network, the first of which is taken.
        classes: to explain, by name or index; null for all.
        canvas: how canvases are sampled.
        canvases: how many a class.
        layer: the module of the network to look at, by name; null for the last whose output has
            more than one place.
    """

    leaves = Patterns

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        explains: str,
        classes: Sequence[str | int] | None,
        canvas: Canvas,
        canvases: int,
        layer: str | None,
    ) -> None:
        self.subject, self.seed, self.stage, self.explains = subject, seed, stage, explains
        self.canvas, self.canvases = canvas, canvases
        self.classes = chosen_classes(classes, subject.data, f"method.{stage}.classes")
        self.network = subject.explained(explains).to(subject.device)
        shape, setting = subject.data.image_shape, f"method.{stage}.layer"
        self.layer = self.network.get_submodule(attended_layer(self.network, shape, layer, setting))

    @classmethod
    def check(
        cls,
        plan: Plan,
        *,
        stage: str,
        classes: Sequence[str | int] | None,
        layer: str | None,
        **_: Any,
    ) -> None:
        """Refuse classes without test images, and layers that are none, before training."""
        chosen_classes(classes, plan.data, f"method.{stage}.classes")
        if network := plan.untrained(stage):
            attended_layer(network, plan.data.image_shape, layer, f"method.{stage}.layer")

    def explanations(self) -> Patterns:
        """The maps on the canvases, before they are cut to a size."""
        data = self.subject.data
        chosen = choose_canvases(
            data,
            test_logits(self.network, data, self.subject.device),
            canvas=self.canvas,
            classes=self.classes,
            count=self.canvases,
            seed=self.seed,
            stage=self.stage,
        )
        images = data.normalization.normalize(chosen.images)
        maps = attention_of(self.network, self.layer, images, chosen.labels, data.batch_size)
        return Patterns(
            explains=self.explains,
            masks=_to_one(maps),
            canvases=chosen.images,
            labels=chosen.labels,
            searched=torch.zeros(len(data.splits.test), dtype=torch.bool),
        )


def _to_one(maps: Tensor) -> Tensor:
    """Maps ``[n, H, W]`` of 0 or more, each over its highest value; one of zeros stays."""
    peaks = maps.amax((1, 2), keepdim=True)
    return maps / peaks.masked_fill(peaks == 0, 1)
