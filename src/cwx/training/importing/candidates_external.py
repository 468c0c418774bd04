"""Candidates that `network=external` builds."""

from functools import partial
from typing import Any

from torch import nn

from cwx.networks.external import external
from cwx.training.importing.candidates import Architecture


def external_architecture(
    description: str,
    build: Any,
    target: str,
    arguments: dict[str, Any],
    *,
    classes: int,
    channels: int,
    image_size: int | None = None,
    likely_size: int | None = None,
) -> Architecture:
    """The architecture that `build` makes of `arguments`.

    Args:
        target: the import path of `build`.
    """
    bound: partial[nn.Module] = partial(build, **arguments)
    settings = {"network": "external", "network.build._target_": target}
    settings |= {f"network.build.{name}": value for name, value in arguments.items()}
    return Architecture(
        description=f"{description}, {count(classes, 'class')}",
        settings=settings,
        factory=partial(
            external, build=bound, output=None, probabilities=False, reverse_channels=False
        ),
        classes=classes,
        channels=channels,
        image_size=image_size,
        likely_size=likely_size,
    )


def count(number: int, noun: str) -> str:
    """
    >>> count(1, "class"), count(10, "class")
    ('1 class', '10 classes')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}es"
