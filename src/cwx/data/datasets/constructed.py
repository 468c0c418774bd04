"""Reading constructed training sets: those of Ilyas et al. 2019, and those made here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.storage.shards import Shards

# Of the published folders (d_robust_CIFAR and its like).
IMAGES, LABELS = "CIFAR_ims", "CIFAR_lab"


def read_constructed(path: Path) -> ImageSet:
    """The images and labels at `path`; no code in it is run.

    It may be a published folder, of torch files `CIFAR_ims`, floats ``[n, C, H, W]`` in 0-1, and
    `CIFAR_lab`, both one tensor or a list of them; a folder of shards; or a safetensors file.

    Raises:
        ValueError: it is none of these, is damaged, or holds anything but images and labels.
    """
    if (path / IMAGES).is_file():
        return _checked(path, _loaded(path / IMAGES), _loaded(path / LABELS))
    tensors = _safetensors(path)
    if missing := {"images", "labels"} - tensors.keys():
        raise ValueError(
            f"{path} holds no {sorted(missing)[0]} among {', '.join(sorted(tensors)) or 'nothing'}:"
            " name a set with images and labels"
        )
    return _checked(path, tensors["images"], tensors["labels"])


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged or missing ({error}): copy it again") from error
    try:
        return Shards.opened(path).read()
    except ValueError as error:
        raise ValueError(
            f"{path} is no constructed set: give a folder with {IMAGES} and {LABELS}, one of the "
            f"store, or a safetensors file ({error})"
        ) from error


def _loaded(file: Path) -> Tensor:
    """One tensor, or the published lists of them put together."""
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # The unpickler of a damaged or hostile file may raise anything.
        raise ValueError(
            f"{file} is missing, damaged or not plain tensors ({type(error).__name__}); no code in "
            "it was run: copy it again, or save it anew as tensors alone"
        ) from error
    parts = list(found) if isinstance(found, list | tuple) else [found]
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise ValueError(
            f"{file} holds a {type(found).__name__}, not a tensor or a list of them: save it anew "
            "as tensors alone"
        )
    try:
        return torch.cat(parts)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{file} holds tensors that do not go together ({str(error).splitlines()[0]}): save it "
            "anew as one tensor"
        ) from error


def _checked(path: Path, images: Tensor, labels: Tensor) -> ImageSet:
    if images.ndim != 4 or labels.shape != images.shape[:1] or not len(images):
        raise ValueError(
            f"{path} has images of {tuple(images.shape)} and labels of {tuple(labels.shape)}: give "
            "images [n, C, H, W] and a label for each"
        )
    if labels.dtype in (torch.bool, *_FLOATS) or labels.is_complex():
        raise ValueError(f"{path} has labels of {labels.dtype}: give whole class indices")
    return ImageSet(_as_bytes(path, images), labels.long())


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _as_bytes(path: Path, images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if images.dtype not in _FLOATS:
        raise ValueError(f"{path} has images of {images.dtype}: give floats in 0-1, or bytes")
    low, high = images.min().item(), images.max().item()
    # NaN compares as false.
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise ValueError(
            f"{path} has pixels in {low:g}-{high:g}: give floats in 0-1, not normalised, or bytes"
        )
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)


# Of pixels that were normalised and back in single precision.
_SLACK = 1e-3
