"""The number of channels of the images of folders."""

from collections.abc import Sequence

from cwx.data.datasets.class_folders import FilesByClass
from cwx.data.image_decoding import is_grey_file


def check_channels(channels: int | None) -> None:
    """Refuse numbers of channels other than 1, 3 and ``None``.

    Raises:
        ValueError: see above.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"data.source.channels is {channels}: give 1, 3 or null")


def common_channels(splits: Sequence[FilesByClass]) -> int:
    """1 if all images are stored in grey, else 3."""
    files = (file for split in splits for paths in split.values() for file in paths)
    return 1 if all(is_grey_file(file) for file in files) else 3
