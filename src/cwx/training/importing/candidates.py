"""Architectures as candidates for a state_dict, and the names and shapes of their tensors."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cwx.training.importing.checkpoint import COUNTER

Shapes = Mapping[str, tuple[int, ...]]
# What building a network of senseless sizes raises.
BUILD_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AssertionError)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network that has exactly the tensors of a state_dict.

    Attributes:
        description: as a person says it, such as "torchvision's resnet18, 10 classes".
        settings: that build it, by their names within a study: ``network`` is the choice of the
            configuration group, ``network.width`` a value in it.
        factory: builds it untrained, from in_channels, image_size and num_classes.
        classes: the number of outputs.
        channels: of the images.
        image_size: side of the images in pixels, where the shapes leave no other.
        likely_size: side of the images that such networks usually see.
        normalization: mean and std of pixels in 0-1, if the file states them.
        prefix: that the names of all its tensors have in the file, such as ``module.``.
        beside: names in the file that do not belong to it.
    """

    description: str
    settings: Mapping[str, Any]
    factory: Callable[..., nn.Module] = field(compare=False)
    classes: int
    channels: int
    image_size: int | None = None
    likely_size: int | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    prefix: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Family:
    """Architectures with common names of tensors.

    Attributes:
        names: of some tensors that each member has.
        candidates: members for these shapes, the most usual first; those of one group have equal
            shapes. They need not fit. Raises LookupError, ValueError, TypeError or
            ArithmeticError if there is none.
    """

    names: tuple[str, ...]
    candidates: Callable[[Shapes], Iterable[Sequence[Architecture]]]


class _EmptyOnMeta(TorchFunctionMode):
    """Weights have no memory, but small tensors of numbers have."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build_shapes(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state_dict of what `build` returns, without memory for its weights.

    The global random state stays as it is.

    Raises:
        ValueError: it cannot be built.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try:
                with torch.device("meta"):
                    network = build()
            except NotImplementedError:
                # It reads values of small tensors, as torchvision's RegNet does of its widths.
                with _EmptyOnMeta():
                    network = build()
        except BUILD_ERRORS as error:
            raise ValueError(f"such a network cannot be built: {error}") from error
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def architecture_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of an architecture.

    Raises:
        ValueError: it cannot be built.
    """
    side = architecture.image_size or architecture.likely_size or 32
    return build_shapes(
        lambda: architecture.factory(
            in_channels=architecture.channels,
            image_size=(side, side),
            num_classes=architecture.classes,
        )
    )


def differences(shapes: Shapes, expected: Shapes) -> tuple[list[str], list[str], list[str]]:
    """The names that are missing in `shapes`, that only `shapes` has, and of another shape.

    A counter of batch norm may be missing.
    """
    missing = [n for n in expected if n not in shapes and not n.endswith(COUNTER)]
    extra = [n for n in shapes if n not in expected]
    changed = [n for n, shape in expected.items() if n in shapes and shapes[n] != shape]
    return missing, extra, changed


def sequential_layers(shapes: Shapes, start: str) -> list[int]:
    """The positions in a Sequential of its layers with weights, in order."""
    parts = [n[len(start) :].split(".") for n in shapes if n.startswith(start)]
    numbers = {p[0] for p in parts if len(p) == 2 and p[1] == "weight"}
    return sorted(int(n) for n in numbers if n.isascii() and n.isdigit() and len(n) < 5)


def square_root(number: int) -> int:
    """The exact square root.

    Raises:
        ValueError: `number` is no square.
    """
    root = int(number**0.5 + 0.5)
    if root < 1 or root * root != number:
        raise ValueError(f"{number} is no square")
    return root
