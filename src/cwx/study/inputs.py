"""What a study reads, compared with what it read when it was started."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cwx.data.datamodule import ImageData
from cwx.storage.run_inputs import RunInputs
from cwx.storage.store_entries import digest
from cwx.training.stages import Configuration

# Longer strings are no paths.
_MAX_PATH = 4096


def check_files(inputs: RunInputs, configuration: Configuration) -> None:
    """Check every file that a setting names: classes, taxonomies, triggers, checkpoints, ….

    Raises:
        ChangedInputError: a file is another than at the first start.
    """
    for setting, text in _strings(configuration, ""):
        if _is_file(text) and not setting.startswith(("logger.", "trainer.")):
            inputs.check_file(setting, Path(text))


def check_images(inputs: RunInputs, data: ImageData, configuration: Configuration) -> None:
    """Check the images as they were loaded, before any corruption.

    Raises:
        ChangedInputError: they are others than at the first start.
    """
    settings = digest({"data": configuration.get("data")})
    for name, fingerprint in (
        ("the training images", data.fingerprint()),
        ("the test images", data.test_fingerprint()),
        ("the synsets of the classes", digest({"synsets": list(data.splits.synsets or ())})),
    ):
        source = getattr(data.source, "root", None)
        label = f"{name} ({source})" if isinstance(source, str | Path) else name
        inputs.check(label, fingerprint, settings=settings)


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _strings(item, f"{key}.{index}")


def _is_file(text: str) -> bool:
    """Whether a setting is the path of a file; a bare word is a name, not a path."""
    if len(text) > _MAX_PATH or not ("/" in text or Path(text).suffix):
        return False
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
