"""What the configuration beside weights says: those of timm, Hugging Face and TrojAI."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cwx.data.resizing import INTERPOLATIONS
from cwx.errors import UserError
from cwx.storage.json_files import read_object
from cwx.training.importing.file_words import (
    Words,
    channels_of,
    channels_of_size,
    classes_of,
    count_of,
    fraction_of,
    name_of,
    normalization_words,
    numbers_of,
    positive_of,
    size_of,
)

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
# The numbers of Pillow's filters, which Hugging Face writes.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_BYTES = 255


def config_words(folder: Path) -> tuple[Words, str]:
    """The words of `CONFIG` and `PREPROCESSOR` in a folder, as `words_of`, and their origin.

    ``architecture`` is the function of timm, or the class of transformers. Empty where there is no
    such file, or it is of another program.

    Raises:
        UserError: a file of these names is no JSON object.
    """
    config = _read(folder / CONFIG)
    if isinstance(config.get("architecture"), str):
        return _stated(_timm(config)), f"{CONFIG} of timm"
    if isinstance(config.get("architectures"), list) or isinstance(config.get("model_type"), str):
        words = _transformers(config) | _preprocessor(_read(folder / PREPROCESSOR))
        return _stated(words), f"{CONFIG} of Hugging Face"
    if isinstance(config.get("model_architecture") or config.get("MODEL_ARCHITECTURE"), str):
        return _stated(_trojai(config)), f"{CONFIG} of TrojAI"
    return {}, ""


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return read_object(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}, beside the weights, cannot be read ({reason})") from error


def _stated(words: Words) -> Words:
    return {word: value for word, value in words.items() if value is not None}


def _timm(config: Mapping[str, Any]) -> Words:
    settings = config.get("pretrained_cfg")
    # Older files state these settings beside the architecture.
    settings = settings if isinstance(settings, Mapping) else config
    arguments = config.get("model_args")
    arguments = arguments if isinstance(arguments, Mapping) else {}
    size = settings.get("input_size")
    return {
        "model_name": name_of(config["architecture"]),
        "architecture": name_of(config["architecture"]),
        "num_classes": count_of(config.get("num_classes")) or count_of(settings.get("num_classes")),
        "size": size_of(arguments.get("img_size")) or size_of(size),
        "channels": channels_of(arguments.get("in_chans")) or channels_of_size(size),
        "crop": fraction_of(settings.get("crop_pct")),
        "interpolation": _filter(settings.get("interpolation")),
        "classes": classes_of(config.get("label_names")) or classes_of(settings.get("label_names")),
        **normalization_words(numbers_of(settings.get("mean")), positive_of(settings.get("std"))),
    }


def _transformers(config: Mapping[str, Any]) -> Words:
    named = config.get("architectures")
    classes = config.get("id2label")
    count = len(classes) if isinstance(classes, Mapping) else config.get("num_labels")
    return {
        "model_name": name_of(config.get("_name_or_path")) or name_of(config.get("model_type")),
        "architecture": name_of(named[0]) if isinstance(named, list) and named else None,
        # A configuration without labels has two by default.
        "num_classes": count_of(count),
        "size": size_of(config.get("image_size")),
        "channels": channels_of(config.get("num_channels")),
        "classes": classes_of(classes),
    }


def _preprocessor(settings: Mapping[str, Any]) -> Words:
    """Words of an image processor of transformers, whose pixels may have another scale."""
    if not settings:
        return {}
    mean, std = numbers_of(settings.get("image_mean")), positive_of(settings.get("image_std"))
    if settings.get("do_normalize") is False:
        mean, std = (0.0,), (1.0,)
    factor = settings.get("rescale_factor", 1 / _BYTES)
    if settings.get("do_rescale") is False:
        factor = 1.0
    words: Words = {}
    if mean and std and isinstance(factor, int | float) and factor > 0:
        # A pixel p in 0-1 enters as (255·f·p - offset - mean) / std.
        scale, offset = _BYTES * factor, float(settings.get("rescale_offset") is True)
        means = [(m + offset) / scale for m in mean]
        words |= {"mean": tuple(means), "std": tuple(s / scale for s in std)}
    return words | _stated(
        _resizing(settings) | {"interpolation": _filter(settings.get("resample"))}
    )


def _resizing(settings: Mapping[str, Any]) -> Words:
    """The size of the inputs, and its fraction of the resized images' shorter side."""
    resized, cropped = size_of(settings.get("size")), size_of(settings.get("crop_size"))
    if resized and cropped and settings.get("do_center_crop", True):
        return {"size": cropped, "crop": fraction_of(min(cropped) / min(resized))}
    return {"size": resized, "crop": fraction_of(settings.get("crop_pct"))}


def _filter(value: Any) -> str | None:
    name = _FILTERS.get(value, "") if isinstance(value, int) else value
    return name if name in INTERPOLATIONS else None


def _trojai(config: Mapping[str, Any]) -> Words:
    """The words of a configuration of TrojAI, whose inputs are pixels in 0-1."""
    lower = {key.lower(): value for key, value in config.items()}
    return {
        "model_name": name_of(lower.get("model_architecture")),
        "num_classes": count_of(lower.get("number_classes")),
        "size": size_of(lower.get("cnn_img_resolution")) or size_of(lower.get("img_size_pixels")),
        "mean": (0.0,),
        "std": (1.0,),
    }
