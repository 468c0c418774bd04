"""Grad-CAM maps of a class as patterns (ISCP, App. F, Figure 11)."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from cwx.data.canvases import choose_canvases, classes_to_explain, test_logits
from cwx.explanations.patterns import Patterns
from cwx.functional.canvas_sampling import Canvas
from cwx.functional.class_names import ClassName
from cwx.networks.gradcam import attention_maps
from cwx.networks.layers import attention_layer
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class GradCamRegions:
    """Uses the Grad-CAM maps of a class on its canvases as masks, each scaled to a maximum of 1.

    Nothing is optimised, so this is not a LightningModule.

    Args:
        subject: the data and the networks.
        seed: of random canvases.
        explains: the kind of network; the first network of the kind is explained.
        classes: classes to explain, by name or index; null for all.
        canvas: how canvases are sampled.
        canvases: canvases per class.
        layer: name of the module whose output Grad-CAM uses; null for the last module whose output
            has more than one spatial position.
    """

    leaves = Patterns

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        explains: str,
        classes: Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        canvas: Canvas,
        canvases: Annotated[int, ">= 1"],
        layer: str | None,
    ) -> None:
        self.subject, self.seed, self.stage, self.explains = subject, seed, stage, explains
        self.canvas, self.canvases = canvas, canvases
        self.classes = classes_to_explain(classes, subject.data, f"method.{stage}.classes")
        self.network = subject.first_network(explains)
        shape, setting = subject.data.image_shape, f"method.{stage}.layer"
        self.layer = self.network.get_submodule(
            attention_layer(self.network, shape, layer, setting)
        )

    @classmethod
    def check(
        cls,
        plan: Plan,
        *,
        stage: str,
        classes: Sequence[ClassName] | None,
        layer: str | None,
        **_: Any,
    ) -> None:
        """Refuse classes without test images and unknown layers before training.

        Raises:
            ValueError: a class has no test images, or the network has no such layer.
        """
        classes_to_explain(classes, plan.data, f"method.{stage}.classes")
        if network := plan.untrained(stage):
            attention_layer(network, plan.data.image_shape, layer, f"method.{stage}.layer")

    def explanations(self) -> Patterns:
        """The Grad-CAM maps on the canvases, before thresholding to a mask size."""
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
        maps = attention_maps(self.network, self.layer, images, chosen.labels, data.batch_size)
        return Patterns(
            explains=self.explains,
            masks=_scale_to_one(maps),
            canvases=chosen.images,
            labels=chosen.labels,
            searched=torch.zeros(len(data.splits.test), dtype=torch.bool),
        )


def _scale_to_one(maps: Tensor) -> Tensor:
    """Divide each non-negative map ``[n, H, W]`` by its maximum; a map of zeros stays zero."""
    peaks = maps.amax((1, 2), keepdim=True)
    return maps / peaks.masked_fill(peaks == 0, 1)
