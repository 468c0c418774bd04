"""Images inside a page as data URIs, and limits on their number and size."""

import base64
import io
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cwx.explanations.drawing import Pixels, to_pixels
from cwx.report.image_sources import ImageSource

# Bytes of uncompressed pixels on one page: it stays below about 60 MB and opens within 2 s.
MAX_BYTES = 48 * 2**20
# Images on one page, unless one image per class already exceeds it.
MAX_COUNT = 4000
# Above so many times MAX_COUNT, classes are left out.
CROWD = 3
# Images are not reduced below this side length in pixels.
MIN_SIDE = 32
# A PNG of more bytes, as of noisy images, is replaced by a JPEG.
MAX_PNG_BYTES = 48 * 1024


@dataclass(frozen=True)
class InlineImage:
    """One image as a data URI, with its alternative text."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the images of a page.

    Attributes:
        per_class: images per class and source.
        shrink: the factor by which large images are reduced.
        before: classes with this label or a higher one are left out; ``None`` for no limit.
        complete: whether no image is left out.
    """

    per_class: int
    shrink: int
    before: int | None
    complete: bool

    def factor(self, shape: Sequence[int]) -> int:
        """The reduction factor of images ``(C, H, W)``: small images keep their size."""
        return max(1, min(self.shrink, min(shape[1:]) // MIN_SIDE))

    @property
    def note(self) -> str:
        """The limits as text for readers; empty if there are none."""
        parts = []
        if not self.complete:
            first = f"the first {self.per_class}" if self.per_class > 1 else "the first image"
            parts.append(f"{first} of each class and source")
        if self.before is not None:
            parts.append(f"the first {self.before} classes")
        if self.shrink > 1:
            parts.append(f"large images reduced {self.shrink} times")
        return f"Shown: {', '.join(parts)}." if parts else ""


def fit_limits(
    sources: Sequence[ImageSource],
    *,
    per_class: int | None = None,
    max_bytes: int = MAX_BYTES,
    max_count: int = MAX_COUNT,
) -> ImageLimits:
    """The limits under which the images of all sources fit on one page.

    First the number per class is reduced, then the number of classes, then the size.

    Args:
        per_class: the wanted number of images per class and source; ``None`` for all.
        max_bytes: of uncompressed pixels; exceeded only if images cannot be reduced further.
        max_count: of images; exceeded, up to `CROWD` times, if each class has a single image.
    """
    largest = max((source.max_per_class for source in sources), default=1)
    wanted = largest if per_class is None else min(per_class, largest)

    def fits(count: int) -> bool:
        limits = ImageLimits(count, 1, None, complete=True)
        return _bytes(sources, limits) <= max_bytes and _count(sources, limits) <= max_count

    # Fewer images fit if more do.
    fitting = max(1, bisect_left(range(1, wanted + 1), True, key=lambda k: not fits(k)))
    limits = ImageLimits(fitting, 1, None, complete=fitting == largest)
    labels = sorted({label for source in sources for label in source.labels})
    excess = _count(sources, limits) / (CROWD * max_count)
    if excess > 1 and len(labels) > 1:
        limits = replace(limits, before=labels[max(1, int(len(labels) / excess))], complete=False)
    max_shrink = max((min(source.shape[1:]) // MIN_SIDE for source in sources), default=1)
    while _bytes(sources, limits) > max_bytes and limits.shrink < max_shrink:
        limits = replace(limits, shrink=limits.shrink + 1)
    return limits


def _count(sources: Iterable[ImageSource], limits: ImageLimits) -> int:
    return sum(len(indices) for source in sources for _, indices in _limited(source, limits))


def _bytes(sources: Iterable[ImageSource], limits: ImageLimits) -> float:
    """Bytes of uncompressed pixels."""
    return sum(
        math.prod(source.shape) / limits.factor(source.shape) ** 2 * _count([source], limits)
        for source in sources
    )


def _limited(source: ImageSource, limits: ImageLimits) -> list[tuple[int, list[int]]]:
    """The labels and image indices within the limits."""
    return [
        (label, indices[: limits.per_class])
        for label, indices in sorted(source.indices_by_class.items())
        if limits.before is None or label < limits.before
    ]


def encode_images(
    source: ImageSource, limits: ImageLimits, class_name: Callable[[int], str], suffix: str = ""
) -> dict[str, list[InlineImage]]:
    """The images of a source within the limits, by class name.

    Args:
        class_name: from the label.
        suffix: ends the alternative texts: the run's position in a sweep.
    """
    images: dict[str, list[InlineImage]] = {}
    by_class = source.indices_by_class
    factor = limits.factor(source.shape)
    for label, indices in _limited(source, limits):
        rendered = source.render(label, len(indices))
        for number, (index, unit) in enumerate(zip(indices, rendered, strict=True), 1):
            total = len(by_class[label])
            of_total = f" {number} of {total}" if total > 1 else ""
            detail = f", {source.details[index]}" if source.details else ""
            alt = f"{class_name(label)}: {source.title}{of_total}{detail}{suffix}"
            image = _inline_image(_reduced(unit, factor), alt)
            images.setdefault(class_name(label), []).append(image)
    return images


def data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _reduced(image: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(image[None].clamp(0, 1), factor)[0] if factor > 1 else image


def _inline_image(image: Tensor, alt: str) -> InlineImage:
    height, width = image.shape[1:]
    # NaN would be converted to an arbitrary colour.
    pixels = to_pixels(torch.nan_to_num(image))
    return InlineImage(_encode(pixels, grey=len(image) < 3), width, height, alt)


def _encode(pixels: Pixels, *, grey: bool) -> str:
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    file = io.BytesIO()
    image.save(file, "PNG")
    if file.tell() <= MAX_PNG_BYTES:
        return data_uri(file.getvalue(), "png")
    file = io.BytesIO()
    # Colours at full resolution: patterns may consist of single pixels.
    image.save(file, "JPEG", quality=92, subsampling=0)
    return data_uri(file.getvalue(), "jpeg")
