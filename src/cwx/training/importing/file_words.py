"""What a file of weights says of its network and its images, as validated plain values."""

import math
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

Words = dict[str, Any]

_NAMES = ("model_name", "arch", "architecture", "model", "net", "network", "backbone")
_MORE_NAMES = ("model_type", "net_type", "net_name", "network_name", "model_arch")
_COUNTS = ("num_classes", "n_classes", "nclass", "nb_classes", "num_class", "num_labels")
_SETS = ("clean_data", "dataset", "data_set", "dataset_name", "data_name", "data")
_SIZES = ("img_size", "image_size", "input_size", "imgsz", "crop_size", "resolution")
_CHANNELS = ("in_channels", "in_chans", "input_channels", "input_channel", "num_channels")
_LISTS = ("classes", "class_names", "id2label", "idx_to_class", "class_to_idx", "label2id")
_MEANS, _STDS = ("mean", "norm_mean", "image_mean"), ("std", "norm_std", "image_std")
# Where programs keep the settings of a training.
_SETTINGS = ("hyper_parameters", "hparams", "args", "opt", "opts", "config", "cfg", "settings")
_PARTS = ("model", "network", "net", "data", "dataset")
_NAME = re.compile(r"[A-Za-z][\w./:@+-]{0,199}")
_MOST_CLASSES, _MOST_CHANNELS, _MOST_SIDE = 10**6, 16, 8192
_LONGEST_CLASS = 200
# A larger mean is that of pixels in 0-255.
_MOST_OF_UNIT = 2
# Names that programs write where nobody stated any.
_UNNAMED = re.compile(r"LABEL_\d+")


def words_of(levels: Sequence[Mapping[Any, Any]]) -> Words:
    """The words in mappings and the settings within them; the first that states a word wins.

    The words are ``model_name``, ``num_classes``, ``dataset``, ``mean``, ``std`` (of pixels in
    0-1), ``size`` (height, width), ``channels``, ``classes``, ``crop`` and ``interpolation``.
    """
    words: Words = {}
    for source in _sources(levels):
        found = {
            "model_name": _first(source, (*_NAMES, *_MORE_NAMES), name_of),
            "num_classes": _first(source, (*_COUNTS, "classes"), count_of),
            "dataset": _first(source, _SETS, name_of),
            "size": _first(source, _SIZES, size_of),
            "channels": _first(source, _CHANNELS, channels_of)
            or _first(source, _SIZES, channels_of_size),
            "classes": _first(source, _LISTS, classes_of),
            "crop": _first(source, ("crop_pct",), fraction_of),
            "interpolation": _first(source, ("interpolation",), name_of),
        }
        found |= normalization_words(
            _first(source, _MEANS, numbers_of), _first(source, _STDS, positive_of)
        )
        words |= {k: v for k, v in found.items() if v is not None and k not in words}
    return words


def normalization_words(mean: Sequence[float] | None, std: Sequence[float] | None) -> Words:
    """The words ``mean`` and ``std`` of pixels in 0-1; empty unless both are stated.

    Numbers of pixels in 0-255 are divided by 255.
    """
    if mean is None or std is None or len(mean) != len(std) or min(mean) < 0 or min(std) <= 0:
        return {}
    scale = 255 if max(mean) > _MOST_OF_UNIT else 1
    return {"mean": tuple(m / scale for m in mean), "std": tuple(s / scale for s in std)}


def _sources(levels: Sequence[Mapping[Any, Any]]) -> Iterator[Mapping[Any, Any]]:
    """The mappings, then the settings in them, then the parts of these."""
    yield from levels
    settings = [
        mapping
        for level in levels
        for key in _SETTINGS
        if (mapping := _mapping_of(level.get(key))) is not None
    ]
    yield from settings
    for source in settings:
        for key in _PARTS:
            if (part := _mapping_of(source.get(key))) is not None:
                # A name within a part of the settings is that of the part.
                names = {"model_name": part.get("name")} if key in _PARTS[:3] else {}
                yield {**part, **names}


def _mapping_of(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Namespace):
        return vars(value)
    return value if isinstance(value, Mapping) else None


def _first(source: Mapping[Any, Any], keys: Sequence[str], read: Any) -> Any:
    values = (read(_plain(source[key])) for key in keys if key in source)
    return next((value for value in values if value is not None), None)


def _plain(value: Any) -> Any:
    """Short arrays and tensors as lists, numbers of NumPy as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | Tensor):
        short = math.prod(value.shape) <= _MOST_CHANNELS and value.dtype != object
        is_read = short and not (isinstance(value, Tensor) and value.is_meta)
        return value.reshape(-1).tolist() if is_read else None
    return value


def name_of(value: Any) -> str | None:
    """A name of a network or data set, without spaces."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def count_of(value: Any) -> int | None:
    """A number of classes."""
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 2 <= value <= _MOST_CLASSES else None


def channels_of(value: Any) -> int | None:
    """A number of channels."""
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 1 <= value <= _MOST_CHANNELS else None


def fraction_of(value: Any) -> float | None:
    """A number in (0, 1]."""
    return float(value) if _is_number(value) and 0 < value <= 1 else None


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def numbers_of(value: Any) -> tuple[float, ...] | None:
    """A number for each channel."""
    values = [value] if _is_number(value) else value
    is_list = isinstance(values, list | tuple) and 1 <= len(values) <= 4
    return tuple(map(float, values)) if is_list and all(map(_is_number, values)) else None


def positive_of(value: Any) -> tuple[float, ...] | None:
    """A positive number for each channel."""
    values = numbers_of(value)
    return values if values and min(values) > 0 else None


def size_of(value: Any) -> tuple[int, int] | None:
    """Height and width of images, from a side, ``[h, w]``, ``[c, h, w]`` or ``[h, w, c]``."""
    if isinstance(value, Mapping):
        # The forms of Hugging Face.
        height, width = value.get("height"), value.get("width")
        value = value.get("shortest_edge") if None in (height, width) else (height, width)
    sides = _sides(value)
    return (sides[0], sides[1]) if sides else None


def channels_of_size(value: Any) -> int | None:
    """The channels in ``[c, h, w]`` or ``[h, w, c]``."""
    sides = _sides(value)
    return sides[2] if sides else None


def _sides(value: Any) -> tuple[int, int, int | None] | None:
    """Height, width and channels."""
    values = [value] * 2 if isinstance(value, int) else value
    if not isinstance(values, list | tuple) or len(values) not in (2, 3):
        return None
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        return None
    if max(values) > _MOST_SIDE:
        return None
    if len(values) == 2:
        return values[0], values[1], None
    if values[0] <= 4:
        return values[1], values[2], values[0]
    return (values[0], values[1], values[2]) if values[2] <= 4 else None


def classes_of(value: Any) -> tuple[str, ...] | None:
    """Names of classes in the order of the outputs, from a list or a mapping to or from numbers.

    ``None`` without a name for every number, or where the names are placeholders.
    """
    if isinstance(value, Mapping):
        pairs = [(v, k) if isinstance(v, int) else (k, v) for k, v in value.items()]
        numbers = {_number(number): name for number, name in pairs}
        if len(numbers) != len(value) or set(numbers) != set(range(len(value))):
            return None
        value = [numbers[index] for index in range(len(value))]
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= _MOST_CLASSES:
        return None
    names = [name for name in value if isinstance(name, str) and 0 < len(name) <= _LONGEST_CLASS]
    if len(names) < len(value) or all(map(_UNNAMED.fullmatch, names)):
        return None
    return tuple(names)


def _number(value: Any) -> int | None:
    value = _plain(value)
    if isinstance(value, str) and re.fullmatch(r"\d{1,7}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_READERS = {
    "model_name": name_of,
    "architecture": name_of,
    "num_classes": count_of,
    "dataset": name_of,
    "mean": numbers_of,
    "std": positive_of,
    "size": size_of,
    "channels": channels_of,
    "classes": classes_of,
    "crop": fraction_of,
    "interpolation": name_of,
}


def validated_words(words: Any) -> Words:
    """Those words of a mapping that are valid; empty for anything else."""
    if not isinstance(words, Mapping):
        return {}
    values = {word: read(words[word]) for word, read in _READERS.items() if word in words}
    return {word: value for word, value in values.items() if value is not None}
