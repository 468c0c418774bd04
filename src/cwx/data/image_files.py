"""Reading image files as byte tensors of one size."""

import logging

import numpy as np
import torch
from torch import Tensor

from cwx.data.image_decoding import DecodedImage, decode
from cwx.data.pixel_conversion import Mode, PixelRules
from cwx.data.resizing import Fit
from cwx.data.splits import ImageSet
from cwx.data.stored_images import ImageFile, LabelledFiles
from cwx.errors import printable

log = logging.getLogger(__name__)

_MODES: dict[int, Mode] = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# The brightest of all pixels with more than 8 bits, as a fraction of white: darker sets are
# likely to have another white, such as 255 or 4095 in files of 16 bits.
_LEAST_WHITE = 1 / 16


class Reader:
    """Reads image files of one size into memory.

    Args:
        channels: 1 for grey, 3 for colour; 2 and 4 for grey and colour with an alpha channel, which
            comes last.
        fit: resizes each image to the common size; ``None`` if the files have one size already.
        rules: the meaning of pixels that the files do not tell.
    """

    def __init__(self, *, channels: int, fit: Fit | None, rules: PixelRules) -> None:
        self.mode = _MODES[channels]
        self.fit, self.rules = fit, rules
        self.first: tuple[ImageFile, tuple[int, int]] | None = None

    def read(self, files: LabelledFiles) -> ImageSet:
        """The images in the order of `files`, as bytes.

        The first frame or page of a file is read; a log line counts files that have more.

        Raises:
            ValueError: a file is not an image, its pixels have no clear meaning, its size differs
                from the first image that this reader has read, in this call or an earlier one, or
                the images do not fit into memory.
        """
        survey = Survey(self.rules)
        # Fill one tensor: stacking a list would need twice the memory.
        first = self._image(files[0][0], survey)
        images = _allocate(len(files), first)
        images[0] = first
        for index, (file, _) in enumerate(files[1:], start=1):
            images[index] = self._image(file, survey)
        survey.check()
        return ImageSet(images, torch.tensor([label for _, label in files]))

    def _image(self, file: ImageFile, survey: "Survey") -> Tensor:
        decoded, pixels = self.decode(file)
        if self.first is None:
            self.first = file, decoded.image.size
        check_same_size(*self.first, file, decoded.image.size)
        survey.add(file, decoded.bits, decoded.has_frames, self.brightest(pixels))
        return pixels

    def decode(self, file: ImageFile, fit: Fit | None = None) -> tuple[DecodedImage, Tensor]:
        """One image, of any size, and its pixels as bytes ``[C, H, W]``.

        Args:
            fit: in place of the reader's.

        Raises:
            ValueError: the file is not an image, or its pixels have no clear meaning.
        """
        decoded = decode(file, mode=self.mode, rules=self.rules, fit=fit or self.fit)
        array = np.asarray(decoded.image)
        array = array.reshape(*array.shape[:2], -1)
        return decoded, torch.from_numpy(array.transpose(2, 0, 1).copy())

    def settings(self) -> str:
        """What determines the pixels of a file, as text."""
        return repr((self.mode, self.fit, self.rules.background, self.rules.white_level))

    def brightest(self, pixels: Tensor) -> float:
        """The largest value of the colours of an image of this reader, in 0-1."""
        colours = pixels[:-1] if self.mode in ("LA", "RGBA") else pixels
        return int(colours.max()) / 255


def check_same_size(
    first: ImageFile, first_size: tuple[int, int], file: ImageFile, size: tuple[int, int]
) -> None:
    """Refuse images of two sizes, given as width and height.

    Raises:
        ValueError: names both files.
    """
    if size != first_size:
        (width, height), (first_width, first_height) = size, first_size
        raise ValueError(
            f"images differ in size: {printable(first)} is {first_width}x{first_height}, "
            f"{printable(file)} is {width}x{height}; set data.source.size to resize them"
        )


class Survey:
    """What only all files together tell."""

    def __init__(self, rules: PixelRules) -> None:
        self.rules = rules
        self.with_frames: list[ImageFile] = []
        self.deepest: tuple[ImageFile, int] | None = None
        self.brightest = 0.0

    def add(self, file: ImageFile, bits: int, has_frames: bool, brightest: float) -> None:
        if has_frames:
            self.with_frames.append(file)
        if bits > 8:
            self.deepest = self.deepest or (file, bits)
            self.brightest = max(self.brightest, brightest)

    def check(self) -> None:
        """Log files with several frames, and refuse files whose white is likely another."""
        if self.with_frames:
            log.warning(
                "%d files have several frames or pages, such as %s: only the first is read",
                len(self.with_frames),
                printable(self.with_frames[0]),
            )
        if self.deepest is None or self.rules.white_level is not None:
            return
        if self.brightest < _LEAST_WHITE:
            file, bits = self.deepest
            raise ValueError(
                f"the images with more than 8 bits per sample, such as {printable(file)} with "
                f"{bits}, are almost black, so that white is likely another value than the "
                "largest: "
                + self.rules.remedy("white_level", "the value that is white, such as 255 or 4095")
                + "save them with 8 bits"
            )


def _allocate(count: int, image: Tensor) -> Tensor:
    try:
        return torch.empty((count, *image.shape), dtype=torch.uint8)
    except RuntimeError as error:
        size = count * image.numel() / 2**30
        raise ValueError(
            f"{count} images of {'x'.join(map(str, image.shape))} need {size:.1f} GiB of memory, "
            "more than there is: lower data.source.size, or use fewer images"
        ) from error
