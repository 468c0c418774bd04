"""Reading constructed training sets: those of Ilyas et al. (2019) and those of this package."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.storage.regular_files import check_regular
from cwx.storage.safe_load import describe, is_plain, load_tensors
from cwx.storage.shards import Shards

# The files of the published folders, such as d_robust_CIFAR.
IMAGES, LABELS = "CIFAR_ims", "CIFAR_lab"


def read_constructed(path: Path) -> ImageSet:
    """Read the images and labels at `path`, without executing code in its files.

    `path` is one of:

    - a published folder with the torch files `CIFAR_ims`, floats ``[n, C, H, W]`` in 0-1, and
      `CIFAR_lab`; each holds one tensor or a list of tensors;
    - a folder of shards (`cwx.storage.shards`) with ``images`` and ``labels``;
    - a safetensors file with ``images`` and ``labels``.

    Images are floats in 0-1 or bytes in 0-255.

    Raises:
        ValueError: `path` is none of these, is damaged, or holds invalid images or labels.
    """
    if (path / IMAGES).is_file():
        return _image_set(path, _load(path / IMAGES), _load(path / LABELS))
    tensors = _read_tensors(path)
    if missing := {"images", "labels"} - tensors.keys():
        raise ValueError(
            f"{path} has no tensor {sorted(missing)[0]}, only "
            f"{', '.join(sorted(tensors)) or 'nothing'}: name a set with images and labels"
        )
    return _image_set(path, tensors["images"], tensors["labels"])


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            check_regular(path)
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged or missing ({error}): copy it again") from error
    try:
        return Shards.open(path).read()
    except ValueError as error:
        raise ValueError(
            f"{path} is not a constructed set: give a folder with {IMAGES} and {LABELS}, one of "
            f"the store, or a safetensors file ({error})"
        ) from error


def _load(file: Path) -> Tensor:
    """One tensor: the content of a torch file, or its list of tensors concatenated."""
    content = load_tensors(file, "constructed set", "tensors alone")
    parts = list(content) if isinstance(content, list | tuple) else [content]
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise ValueError(
            f"{file} holds {describe(content)}, not a tensor or a list of tensors: save it anew "
            "as tensors alone"
        )
    for part in parts:
        if part.is_nested or part.is_complex() or not is_plain(part):
            raise ValueError(
                f"{file} holds {_kind(part)}: save it anew as plain tensors (dense, real, neither "
                "quantised nor nested, with data)"
            )
    if len(dtypes := {str(part.dtype) for part in parts}) > 1:
        raise ValueError(
            f"{file} holds tensors of {' and '.join(sorted(dtypes))}: save it anew as tensors of "
            "one type"
        )
    try:
        return torch.cat(parts)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{file} holds tensors that cannot be concatenated ({str(error).splitlines()[0]}): "
            "save it anew as one tensor"
        ) from error


def _kind(part: Tensor) -> str:
    # The layout of a nested tensor may be that of a dense one.
    return f"a nested tensor of {part.dtype}" if part.is_nested else describe(part)


def _image_set(path: Path, images: Tensor, labels: Tensor) -> ImageSet:
    if images.ndim != 4 or labels.shape != images.shape[:1] or not images.numel():
        raise ValueError(
            f"{path} has images of shape {tuple(images.shape)} and labels of shape "
            f"{tuple(labels.shape)}: give images [n, C, H, W] and one label per image, "
            "and at least one image and pixel"
        )
    if labels.dtype not in _INTEGERS:
        raise ValueError(f"{path} has labels of {labels.dtype}: give integer class indices")
    return ImageSet(_as_bytes(path, images), labels.long())


_INTEGERS = (
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _as_bytes(path: Path, images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if images.dtype not in _FLOATS:
        raise ValueError(f"{path} has images of {images.dtype}: give floats in 0-1, or bytes")
    low, high = images.min().item(), images.max().item()
    if not (isfinite(low) and isfinite(high)):
        raise ValueError(
            f"{path} has pixels that are not finite ({low:g}-{high:g}): give floats in 0-1"
        )
    if low < -_SLACK or high > 1 + _SLACK:
        raise ValueError(
            f"{path} has pixels in {low:g}-{high:g}: give floats in 0-1 (not normalised), or bytes"
        )
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)


# Tolerance for rounding errors of pixels that were normalised and denormalised in float32.
_SLACK = 1e-3
