"""Pictures that a page carries inside itself, and how many of them it may carry."""

import base64
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cwx.figures import Pixels, to_pixels
from cwx.report.sources import Source

# Of pixels, as bytes, on one page: it stays below some 60 MB, and opens in a second or two.
BUDGET = 48 * 2**20
# On one page, as long as each class has one: more take longer to lay out than to look at.
COUNT = 4000
# Above this many bytes, a PNG of noise-like pixels gives way to a JPEG.
LOSSLESS = 48 * 1024


@dataclass(frozen=True)
class Picture:
    """One image as a data URI; `says` what it shows."""

    uri: str
    width: int
    height: int
    says: str


@dataclass(frozen=True)
class Allowance:
    """How many pictures a class and source may have, and how many times smaller they become.

    Attributes:
        full: whether that is all of them.
    """

    per_class: int
    shrink: int
    full: bool

    @property
    def note(self) -> str:
        """What a reader must know of it."""
        parts = []
        if not self.full:
            first = f"the first {self.per_class}" if self.per_class > 1 else "the first"
            parts.append(f"{first} of each class and source")
        if self.shrink > 1:
            parts.append(f"{self.shrink} times smaller than they are")
        return f"Shown: {', '.join(parts)}." if parts else ""


def allowance(shown: Iterable[Source], *, budget: int = BUDGET, count: int = COUNT) -> Allowance:
    """What lets all of these fit on one page; every class keeps a picture of each source."""
    counts = [
        (math.prod(s.shape), [len(places) for places in s.by_class().values()]) for s in shown
    ]
    most = max((n for _, of_class in counts for n in of_class), default=1)

    def need(per_class: int) -> tuple[int, int]:
        taken = [(area, sum(min(n, per_class) for n in of_class)) for area, of_class in counts]
        return sum(area * n for area, n in taken), sum(n for _, n in taken)

    fitting = [k for k in range(1, most + 1) if need(k)[0] <= budget and need(k)[1] <= count]
    per_class = max(fitting, default=1)
    shrink = math.ceil(math.sqrt(need(per_class)[0] / budget))
    return Allowance(per_class, max(shrink, 1), full=per_class >= most)


def encoded(
    source: Source, allowed: Allowance, name: Callable[[int], str], where: str = ""
) -> dict[str, list[Picture]]:
    """The pictures of a source by the name of their class.

    Args:
        name: of a class, by its label.
        where: which run they are of, where there are several.
    """
    pictures: dict[str, list[Picture]] = {}
    for label, places in sorted(source.by_class().items()):
        for number, place in enumerate(places[: allowed.per_class], 1):
            of = f" {number} of {len(places)}" if len(places) > 1 else ""
            detail = f", {source.details[place]}" if source.details else ""
            says = f"{name(label)}: {source.title}{of}{detail}{where}"
            picture = _picture(_smaller(source.show(place), allowed.shrink), says)
            pictures.setdefault(name(label), []).append(picture)
    return pictures


def data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _smaller(image: Tensor, factor: int) -> Tensor:
    factor = min(factor, *image.shape[1:])
    return F.avg_pool2d(image[None].clamp(0, 1), factor)[0] if factor > 1 else image


def _picture(image: Tensor, says: str) -> Picture:
    height, width = image.shape[1:]
    # A pixel that is not a number would become any colour.
    pixels = to_pixels(torch.nan_to_num(image))
    return Picture(_uri(pixels, grey=len(image) < 3), width, height, says)


def _uri(pixels: Pixels, *, grey: bool) -> str:
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    file = io.BytesIO()
    image.save(file, "PNG")
    if file.tell() <= LOSSLESS:
        return data_uri(file.getvalue(), "png")
    file = io.BytesIO()
    # Colours at full resolution, for a pattern may be single pixels.
    image.save(file, "JPEG", quality=92, subsampling=0)
    return data_uri(file.getvalue(), "jpeg")
