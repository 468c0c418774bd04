"""The columns of the atlas: a row per unit."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cwx.evaluations.atlas.unit_pass import UnitMeasures
from cwx.evaluations.neurons.responses import LayerResponses
from cwx.functional.top_activations import TopActivations

# What each column means, also in the metadata of the file.
COLUMNS = {
    "layer": "index of the layer among the network's layers",
    "unit": "index of the unit in its layer",
    "class": "dominant class: the most frequent among the unit's top images; -1: no top images",
    "class_fraction": "fraction of the top images that are of the dominant class",
    "lc": "semantic level and consistency (Dong et al., Eq 3); NaN: no top images",
    "cs1": "similarity to the classes of the originals of top adversarial images (Eq 4)",
    "cs2": "similarity to the target classes of top adversarial images (Eq 5)",
    "cs1_permuted": "cs1 under random orders of the classes of adversarial images",
    "cs2_permuted": "cs2 under random orders of the classes of adversarial images",
    "fires": "fraction of the test images with an activation above the layer's resting value",
    "detection": "AUROC of the activation for test images of the dominant class",
    "detection_error": "the exact AUROC is at most so far from detection",
    "real/images": "indices of the top test images, highest activation first; -1: no more",
    "real/activations": "activations for them",
    "real/labels": "their classes",
    "real/boxes": "left, top, right, bottom of the receptive field of the map's highest value",
    "adversarial/images": "indices of the top adversarial images; -1: no more",
    "adversarial/activations": "activations for them",
    "adversarial/labels": "classes of their originals",
    "adversarial/targets": "target classes of their attacks",
    "adversarial/boxes": "as real/boxes",
}


def shown_images(top: TopActivations, count: int) -> Tensor:
    """The indices of the first `count` top images of each unit, ``[count, units]``; -1 for none.

    Images count whose activation is above those of all images outside of the top images.
    """
    indices = torch.where(top.responding, top.indices, -1)[:count]
    missing = indices.new_full((count - len(indices), indices.shape[1]), -1)
    return torch.cat([indices, missing])


def dominant_class(responses: LayerResponses) -> Tensor:
    """The most frequent class of each unit's top images, ``[units]``; -1 for none."""
    return torch.where(responses.real.responding.any(0), responses.fractions.argmax(1), -1)


def layer_columns(
    responses: LayerResponses, measures: UnitMeasures, *, number: int, test_images: int
) -> dict[str, Tensor]:
    """The columns of a layer's units, without those of its top images.

    Args:
        responses: top images, LC and CS.
        measures: of the test images.
        number: index of the layer.
        test_images: their number.
    """
    assert measures.detection is not None
    units = len(responses.responding)
    has_top = responses.real.responding.any(0)

    def where(mask: Tensor, values: Tensor) -> Tensor:
        return torch.where(mask, values, torch.nan).float()

    columns = {
        "layer": torch.full((units,), number, dtype=torch.int32),
        "unit": torch.arange(units, dtype=torch.int32),
        "class": dominant_class(responses).int(),
        "class_fraction": where(has_top, responses.fractions.amax(1)),
        "lc": where(has_top, responses.values["lc"]),
    }
    columns |= {
        name: where(responses.responding, values)
        for name, values in responses.values.items()
        if name != "lc"
    }
    return columns | {
        "fires": (measures.fires.double() / test_images).float(),
        "detection": where(has_top, measures.detection.value),
        "detection_error": where(has_top, measures.detection.error),
    }


def image_columns(
    top: TopActivations, positions: Tensor, fields: Tensor, classes: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The columns of the top images of a layer's units.

    Args:
        top: at least the shown images.
        positions: of the map's highest value, ``[shown, units]``.
        fields: see `cwx.networks.receptive_fields`.
        classes: by column, the class of every image of the set.
    """
    count, units = positions.shape
    images = shown_images(top, count).T
    is_shown = images >= 0
    activations = torch.full((units, count), torch.nan)
    activations[:, : len(top.values)] = top.values[:count].T
    boxes = fields.expand(units, -1, -1)[torch.arange(units)[:, None], positions.T.clamp(min=0)]
    return {
        "images": images.int(),
        "activations": torch.where(is_shown, activations, torch.nan),
        "boxes": torch.where(is_shown[..., None], boxes, 0),
        **{
            name: torch.where(is_shown, of_all[images.clamp(min=0)], -1).int()
            for name, of_all in classes.items()
        },
    }


def joined(layers: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The columns of all layers, one after the other."""
    return {name: torch.cat([layer[name] for layer in layers]) for name in layers[0]}
