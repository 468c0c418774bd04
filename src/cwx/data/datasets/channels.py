"""The number of channels of the images of folders."""

from collections.abc import Mapping, Sequence

from cwx.data.image_decoding import is_grey_file
from cwx.data.stored_images import ImageFile


def check_channels(channels: int | None) -> None:
    """Refuse numbers of channels other than 1, 3 and ``None``.

    Raises:
        ValueError: see above.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"data.source.channels is {channels}: give 1, 3 or null")


def common_channels(splits: Sequence[Mapping[str, Sequence[ImageFile]]]) -> int:
    """1 if all images are stored in grey, else 3; files that cannot be read do not count.

    Raises:
        ValueError: none can be read.
    """
    damage: ValueError | None = None
    is_any_read = False
    for file in (file for split in splits for paths in split.values() for file in paths):
        try:
            if not is_grey_file(file):
                return 3
            is_any_read = True
        except ValueError as error:
            # Whoever reads the images refuses or skips the file.
            damage = damage or error
    if damage and not is_any_read:
        raise damage
    return 1
