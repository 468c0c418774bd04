"""How images were resized for published weights, as torchvision and timm state it."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn
from torchvision import models

from cwx.data.datamodule import ImageData
from cwx.data.resizing import DEFAULT_INTERPOLATION, INTERPOLATIONS, ResizingSource
from cwx.storage.safe_load import file_digest
from cwx.training.build import NetworkFactory, build_network
from cwx.training.importing.published_weights import full_weights_name, is_weights_name

# Torchvision's files end with the first digits of their SHA-256.
_DIGITS = 8
_HASH = re.compile(rf"-([0-9a-f]{{{_DIGITS}}})\.pth")


def check_interpolation(
    data: ImageData, sources: Mapping[str, Iterable[str]], networks: Mapping[str, NetworkFactory]
) -> None:
    """Refuse to resize images by the default filter for weights that were made for another.

    Args:
        data: the images; only a source that resizes them, and whose filter is not set, is checked.
        sources: the checkpoints of each network, by its name.
        networks: build the networks, by name.

    Raises:
        ValueError: torchvision or timm states another filter for the weights.
    """
    source = data.source
    if not isinstance(source, ResizingSource) or source.fit is None:
        return
    if source.interpolation is not None:
        return
    for name, checkpoints in sources.items():
        for given in checkpoints:
            checkpoint = full_weights_name(given, networks[name])
            stated = interpolation_of_weights(checkpoint)
            if stated is None:
                stated = interpolation_of_network(build_network(networks[name], data, seed=0))
            if stated not in (None, DEFAULT_INTERPOLATION):
                raise ValueError(
                    f"the weights {checkpoint} were made for images resized with the filter "
                    f"{stated}, but data.source.interpolation is null, which is "
                    f"{DEFAULT_INTERPOLATION}: set data.source.interpolation={stated} (or "
                    f"{DEFAULT_INTERPOLATION}, if these weights were trained on such images)"
                )


def interpolation_of_weights(checkpoint: str) -> str | None:
    """The filter that torchvision states for weights, by their name or by a file's content.

    ``None`` for weights of other origin.
    """
    path = Path(checkpoint)
    weights: Any = None
    if path.is_file():
        weights = _weights_by_hash().get(file_digest(path, "checkpoint")[:_DIGITS])
    elif is_weights_name(checkpoint):
        try:
            weights = models.get_weight(checkpoint)
        except (ValueError, KeyError, TypeError):
            # Refused where the weights are imported.
            return None
    if weights is None:
        return None
    return str(weights.transforms().interpolation.value)


def interpolation_of_network(network: nn.Module) -> str | None:
    """The filter that timm states for a network; ``None`` for networks of other origin."""
    settings = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None)
    stated = settings.get("interpolation") if isinstance(settings, Mapping) else None
    return stated if stated in INTERPOLATIONS else None


@cache
def _weights_by_hash() -> Mapping[str, Any]:
    """Torchvision's weights of image classifiers by the first digits of their file's hash."""
    return {
        match[1]: weights
        for name in models.list_models(module=models)
        for weights in models.get_model_weights(name)
        if (match := _HASH.search(weights.url))
    }
