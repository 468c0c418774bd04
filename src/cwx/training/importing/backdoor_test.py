"""The poisoned test images beside an attack_result of BackdoorBench."""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cwx.errors import UserError
from cwx.storage.regular_files import check_regular
from cwx.storage.safe_load import load_tensors
from cwx.training.importing.weights_file import PLAIN, weights_path

log = logging.getLogger(__name__)

FOLDER = "bd_test_dataset"
# The paths in the file are of another machine: their last two names alone are used.
_ENTRY = re.compile(r"(?:.*[/\\])?([A-Za-z0-9_-]{1,50})[/\\](\d{1,9}\.(?:png|jpg|jpeg|bmp))")


@dataclass(frozen=True, kw_only=True)
class PoisonedImage:
    """A test image with a trigger.

    Attributes:
        file: the image.
        label: the class that the attack aims at.
        original: the class of the image.
    """

    file: Path
    label: int
    original: int


def backdoor_test(path: Path) -> tuple[PoisonedImage, ...]:
    """The poisoned test images that an attack_result names and that lie beside it.

    They are the files ``bd_test_dataset/<folder>/<number>.png`` beside the file. Images that are
    not there are left out and logged.

    Args:
        path: an ``attack_result.pt``, or its folder.

    Raises:
        CodeNeededError: reading the file would run code (names the classes).
        UserError: the file names no poisoned test images, or none is there.
        ValueError: the file is damaged or of another kind.
    """
    file = weights_path(path)
    content = load_tensors(file, "attack_result", PLAIN)
    state = content.get("bd_test") if isinstance(content, Mapping) else None
    container = state.get("bd_data_container") if isinstance(state, Mapping) else None
    entries = container.get("data_dict") if isinstance(container, Mapping) else None
    if not isinstance(entries, Mapping) or not entries:
        raise UserError(
            f"{file} names no poisoned test images (bd_test): give an attack_result.pt of "
            "BackdoorBench"
        )
    folder = file.parent / FOLDER
    named = list(_named(folder, entries))
    images = tuple(image for image in named if _is_within(image.file, folder))
    if not images:
        raise UserError(
            f"none of the {len(entries)} poisoned test images of {file} is in {folder}: copy this "
            "folder from where the attack was run"
        )
    if len(images) < len(entries):
        log.warning(
            "%s: %d of %d poisoned test images are not in %s: left out",
            *(file, len(entries) - len(images), len(entries), folder),
        )
    return images


def _named(folder: Path, entries: Mapping[Any, Any]) -> Iterator[PoisonedImage]:
    for entry in entries.values():
        if not isinstance(entry, Mapping):
            continue
        match = _ENTRY.fullmatch(str(entry.get("path", ""))[:1000])
        labels = [_label(value) for value in _items(entry.get("other_info"))[:2]]
        if match and len(labels) == 2 and None not in labels:
            label, original = (int(value or 0) for value in labels)
            yield PoisonedImage(file=folder / match[1] / match[2], label=label, original=original)


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _label(value: Any) -> int | None:
    is_label = isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0
    return int(value) if is_label else None


def _is_within(file: Path, folder: Path) -> bool:
    """Whether an image is there, and no link leads out of the folder."""
    try:
        check_regular(file)
        return file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False
