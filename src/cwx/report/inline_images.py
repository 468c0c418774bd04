"""Pictures that a page carries inside itself, and how many of them it may carry."""

import base64
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cwx.explanations.drawing import Pixels, to_pixels
from cwx.report.image_sources import Source

# Of pixels, as bytes, on one page: it stays below some 60 MB, and opens in a second or two.
BUDGET = 48 * 2**20
# On one page, as long as each class has one: more take longer to lay out than to look at.
COUNT = 4000
# So many times that at most, and classes are left out.
CROWD = 3
# Pixels that a side keeps.
SMALL = 32
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
    """How many pictures there may be, and how large.

    Attributes:
        per_class: of a class and source at most.
        shrink: how many times smaller large ones become.
        before: the label from which on classes are left out, if some are.
        full: whether that leaves out nothing.
    """

    per_class: int
    shrink: int
    before: int | None
    full: bool

    def factor(self, shape: Sequence[int]) -> int:
        """How many times smaller a picture ``(C, H, W)`` becomes: small ones stay as they are."""
        return max(1, min(self.shrink, min(shape[1:]) // SMALL))

    @property
    def note(self) -> str:
        """What a reader must know of it."""
        parts = []
        if not self.full:
            first = f"the first {self.per_class}" if self.per_class > 1 else "the first"
            parts.append(f"{first} of each class and source")
        if self.before is not None:
            parts.append(f"of the first {self.before} classes")
        if self.shrink > 1:
            parts.append(f"large pictures {self.shrink} times smaller than they are")
        return f"Shown: {', '.join(parts)}." if parts else ""


def allowance(
    shown: Sequence[Source], *, most: int | None = None, budget: int = BUDGET, count: int = COUNT
) -> Allowance:
    """What lets all of these fit on one page.

    First fewer pictures a class, then smaller ones, then fewer classes.

    Args:
        most: pictures a class and source that are wanted; all by default.
        budget: bytes of pixels; exceeded only by pictures that cannot become smaller.
        count: pictures; exceeded while each class has one alone, up to `CROWD` times.
    """
    fullest = max((s.fullest for s in shown), default=1)
    wanted = fullest if most is None else min(most, fullest)

    def fits(per_class: int) -> bool:
        allowed = Allowance(per_class, 1, None, full=True)
        return _weight(shown, allowed) <= budget and _number(shown, allowed) <= count

    per_class = max((k for k in range(1, wanted + 1) if fits(k)), default=1)
    allowed = Allowance(per_class, 1, None, full=per_class == fullest)
    labels = sorted({label for s in shown for label in s.labels})
    crowd = _number(shown, allowed) / (CROWD * count)
    if crowd > 1 and len(labels) > 1:
        allowed = replace(allowed, before=labels[max(1, int(len(labels) / crowd))], full=False)
    smallest = max((min(s.shape[1:]) // SMALL for s in shown), default=1)
    while _weight(shown, allowed) > budget and allowed.shrink < smallest:
        allowed = replace(allowed, shrink=allowed.shrink + 1)
    return allowed


def _number(shown: Iterable[Source], allowed: Allowance) -> int:
    return sum(len(places) for s in shown for _, places in _taken(s, allowed))


def _weight(shown: Iterable[Source], allowed: Allowance) -> float:
    """Bytes of pixels."""
    return sum(
        math.prod(s.shape) / allowed.factor(s.shape) ** 2 * _number([s], allowed) for s in shown
    )


def _taken(source: Source, allowed: Allowance) -> list[tuple[int, list[int]]]:
    return [
        (label, places[: allowed.per_class])
        for label, places in sorted(source.by_class().items())
        if allowed.before is None or label < allowed.before
    ]


def encoded(
    source: Source, allowed: Allowance, name: Callable[[int], str], where: str = ""
) -> dict[str, list[Picture]]:
    """The pictures of a source by the name of their class.

    Args:
        name: of a class, by its label.
        where: which run they are of, where there are several.
    """
    pictures: dict[str, list[Picture]] = {}
    everything = source.by_class()
    factor = allowed.factor(source.shape)
    for label, places in _taken(source, allowed):
        for number, place in enumerate(places, 1):
            all_of_it = len(everything[label])
            of = f" {number} of {all_of_it}" if all_of_it > 1 else ""
            detail = f", {source.details[place]}" if source.details else ""
            says = f"{name(label)}: {source.title}{of}{detail}{where}"
            picture = _picture(_smaller(source.show(place), factor), says)
            pictures.setdefault(name(label), []).append(picture)
    return pictures


def data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _smaller(image: Tensor, factor: int) -> Tensor:
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
