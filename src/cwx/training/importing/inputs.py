"""The usual ways in which programs pass images to a network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from cwx.functional.images import Normalization

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE = (0.4859, 0.4580, 0.4076), (1 / 255,) * 3
# Mean and std of pixels in 0-1, as red, green, blue, by description.
_COLOUR = {
    "ImageNet's": _IMAGENET,
    "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CLIP's": ((0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)),
    "Caffe's": _CAFFE,
}
_ANY = {
    "none (pixels in 0-1)": (0.0, 1.0),
    "pixels in -1 to 1": (0.5, 0.5),
    "pixels in 0-255": (0.0, 1 / 255),
}
_GREY = {"MNIST's": (0.1307, 0.3081), "Fashion-MNIST's": (0.2860, 0.3530)}


@dataclass(frozen=True)
class Inputs:
    """One way from image bytes to the input of a network.

    Attributes:
        changes: what differs from the present way, in words.
        settings: what gives each change: settings, or other remedies.
        normalization: of pixels in 0-1.
        is_reversed: whether the channels are in reversed order (blue, green, red).
        is_inverted: whether the pixels are inverted (255 - value).
    """

    changes: tuple[str, ...]
    settings: tuple[str, ...]
    normalization: Normalization
    is_reversed: bool = False
    is_inverted: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Inputs ``[n, C, H, W]`` from bytes of the same shape."""
        inputs = self.normalization.from_bytes(255 - images if self.is_inverted else images)
        return inputs.flip(1) if self.is_reversed else inputs


# Changes without a setting: in words, and the remedy.
_BGR = (
    "the channels as blue, green, red",
    "weights that take red, green, blue (flip(1) of the first convolution's weight)",
)
_INVERTED = ("inverted pixels", "inverted images (255 minus each value)")


def usual_inputs(present: Normalization) -> list[Inputs]:
    """The usual normalisations, also with reversed channels or inverted pixels.

    Without the present one itself.
    """
    channels = len(present.mean)
    scales = {name: _repeated(scale, channels) for name, scale in _ANY.items()}
    scales |= {
        name: _repeated(scale, channels)
        for name, scale in (_COLOUR if channels == 3 else _GREY).items()
        if channels in (1, 3)
    }
    others = {name: scale for name, scale in scales.items() if not _are_close(scale, present)}
    inputs = [
        Inputs((f"the normalisation {name}",), (_settings(scale),), scale)
        for name, scale in others.items()
    ]
    straight = [Inputs((), (), present), *inputs]
    if channels == 3:
        # The means belong to the channels, before they are reversed.
        inputs += [_with(i, _BGR, is_reversed=True) for i in straight]
    if channels == 1:
        inputs += [_with(i, _INVERTED, is_inverted=True) for i in straight]
    return inputs


def named_inputs(mean: Sequence[float], std: Sequence[float], name: str, channels: int) -> Inputs:
    """Inputs of one normalisation; one number is that of every channel."""
    means, stds = (list(v) * channels if len(v) == 1 else list(v) for v in (mean, std))
    return Inputs((name,), (), Normalization(mean=means, std=stds))


def with_scale_name(inputs: Inputs) -> Inputs:
    """The same inputs, with the name of the normalisation first among the changes."""
    changes = [c.removeprefix("the normalisation ") for c in inputs.changes]
    has_scale = any(change.startswith("the normalisation ") for change in inputs.changes)
    return replace(inputs, changes=tuple(changes if has_scale else ["pixels in -1 to 1", *changes]))


def _with(inputs: Inputs, change: tuple[str, str], **flags: Any) -> Inputs:
    description, remedy = change
    changes, settings = (*inputs.changes, description), (*inputs.settings, remedy)
    return replace(inputs, changes=changes, settings=settings, **flags)


def _repeated(
    scale: tuple[float | Sequence[float], float | Sequence[float]], n: int
) -> Normalization:
    mean, std = ([v] * n if isinstance(v, int | float) else list(v) for v in scale)
    return Normalization(mean=mean, std=std)


def _are_close(first: Normalization, second: Normalization) -> bool:
    """Whether no input differs by more than a hundredth of the range of the pixels."""
    pairs = [*zip(first.mean, second.mean, strict=True), *zip(first.std, second.std, strict=True)]
    return all(abs(a - b) <= 0.01 * b if b else abs(a) < 0.001 for a, b in pairs)


def _settings(scale: Normalization) -> str:
    def text(values: Sequence[float]) -> str:
        numbers = [f"{value:.4g}" for value in values]
        return numbers[0] if len(set(numbers)) == 1 else f"[{','.join(numbers)}]"

    return f"data.mean={text(scale.mean)} data.std={text(scale.std)}"
