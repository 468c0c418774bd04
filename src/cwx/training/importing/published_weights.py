"""Names of torchvision's published weights."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torchvision import models

_NAME = re.compile(r"\w+_Weights\.\w+")
_MEMBER = re.compile(r"DEFAULT|IMAGENET\w+")


def is_weights_name(source: str) -> bool:
    """Whether `source` has the form of a name such as ``ResNet50_Weights.IMAGENET1K_V1``."""
    return bool(_NAME.fullmatch(source))


def full_weights_name(source: str, factory: Callable[..., Any]) -> str:
    """The name of weights, with the network that they are of; other sources as they are.

    Args:
        source: a file, a full name, or a name such as ``IMAGENET1K_V1`` alone, for the weights of
            torchvision's own network.
        factory: builds the network, with torchvision's function as its argument `build`.

    Raises:
        ValueError: the network is not torchvision's, or has no weights of that name.
    """
    if not _MEMBER.fullmatch(source) or Path(source).exists():
        return source
    build = factory.keywords.get("build") if isinstance(factory, partial) else None
    build = getattr(build, "func", build)
    try:
        weights = models.get_model_weights(build)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"the weights {source} have no network: choose a network of torchvision, such as "
            "network=imagenet_resnet18, or give a file or a name such as "
            f"ResNet18_Weights.{source}"
        ) from error
    if source not in weights.__members__:
        raise ValueError(
            f"torchvision has no weights {source} of {weights.__name__.removesuffix('_Weights')}: "
            f"use {' or '.join(weights.__members__)}"
        )
    return f"{weights.__name__}.{source}"
