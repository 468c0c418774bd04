"""Figures that a run drew, as its page shows them: in the order to look at, and what one sees."""

import io
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from cwx.report.inline_images import data_uri
from cwx.report.metric_catalogue import network
from cwx.report.run import Run
from cwx.report.sweep_axes import Point
from cwx.report.traces_page import PICTURES

# Bytes of one figure, and of all on a page, that are carried as they are.
LARGE, TOTAL = 3 * 2**20, 24 * 2**20
# Pixels of what takes the place of a larger one.
SHRUNK = 3_000_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# By name, with what stands for its varying part in words: a title, and what one sees.
_KNOWN = (
    ("explanations", "Explanations beside real images",
     "A row a class; the images of every method, and real ones."),
    ("patterns", "The best pattern of each class, by size",
     "From left to right more pixels are open: what is grey belongs to the image it is put on."),
    ("power", "Predictive power by size",
     "How often other images are taken for the class once they carry a pattern of that size."),
    ("attention", "Attention before and after the pattern is put on",
     "Bright is where Grad-CAM says the network looks, in an image and with a pattern on it."),
    ("neurons_sheet_(.+)", "Top images of neurons, {}",
     "A row shows the real images that excite a neuron most, the row below its adversarial ones "
     "(what they show → what they are meant for); bright is what the neuron looks at. Framed in "
     "red: meant for a class that its real images are of."),
    ("neurons_curve", "What adversarial images excite, by how consistent neurons are",
     "Right are neurons for one kind of class. CS₁ falls and CS₂ rises there if adversarial images "
     "excite neurons of their target rather than of what they show."),
    ("adversarial", "AdversarialSet images",
     "Real images, what was made of them to be taken for the class behind the arrow, and the "
     "enlarged difference."),
    ("representations", "How far attacks move representations",
     "Left r₁, right r₂, over all adversarial images: an attack that moves nothing leaves r₁ at 1, "
     "and one that comes nearer to its target has r₂ below 1."),
    ("adversarial_detection", "AdversarialSet images told from real ones",
     "A curve through the upper left corner finds all, and no other; the diagonal guesses."),
    ("trigger", "The trigger that was put in, and what each source reveals of it",
     "Top row: the true one. Left how strongly pixels set the target class apart, then the "
     "strongest of them, then the image they lie in."),
    ("suspected_(?:by_)?(.+)", "Training images suspected by {}",
     "Top row: images that are left out as poisoned. Below: images of the class that are kept."),
)  # fmt: skip


@dataclass(frozen=True)
class Plate:
    """A figure.

    Attributes:
        says: what one sees, in words; empty where that is not known.
        uri: empty where it is damaged, or too large to be carried.
        size: width and height in pixels as carried.
        note: what a reader must know of it.
    """

    name: str
    title: str
    says: str
    uri: str
    size: tuple[int, int]
    note: str

    @property
    def tall(self) -> bool:
        return self.size[1] > self.size[0]


@dataclass(frozen=True)
class Row:
    """One figure of several runs; each with what sets its run apart."""

    title: str
    says: str
    plates: Sequence[tuple[str, Plate]]


def plates(run: Run, *, fraction: float = 1) -> list[Plate]:
    """All figures of a run, but those of traces, which have a page of their own.

    Args:
        fraction: of what a page may carry.
    """
    files = [f for f in run.folder.glob("figures/*.png") if not f.match(f"{PICTURES}*")]
    ordered = sorted(files, key=lambda f: (_known(f.stem)[0], f.stem))
    return list(_read(run, ordered, int(fraction * TOTAL)))


def side_by_side(points: Sequence[Point], *, fraction: float) -> list[Row]:
    """Figures of the same name in a row, one a run, if there is nothing else to see of the runs.

    Args:
        fraction: of what a page may carry.
    """
    runs = [(point.words, run) for point in points for run in point.runs]
    if any(run.explains for _, run in runs):
        return []
    rows: dict[str, list[tuple[str, Plate]]] = {}
    for words, run in runs:
        for plate in plates(run, fraction=fraction / len(runs)):
            rows.setdefault(plate.name, []).append((words, plate))
    order = sorted(rows, key=lambda name: (_known(name)[0], name))
    return [Row(rows[name][0][1].title, rows[name][0][1].says, rows[name]) for name in order]


def _read(run: Run, files: list[Path], left: int) -> Iterator[Plate]:
    for file in files:
        place = f"figures/{file.name}"
        content, note = run.tried(place, file.read_bytes) or b"", ""
        if not _is_whole(content):
            content, note = b"", "This figure is damaged."
        elif len(content) > min(LARGE, left):
            note = "Shown smaller than it is: the file has it in full."
            content = run.tried(place, partial(_shrunk, content)) or b""
            if not content or len(content) > left:
                content, note = b"", "Too large to be shown here: the file has it."
        left -= len(content)
        _, title, says = _known(file.stem)
        yield Plate(file.stem, title, says, _uri(content), _size(content), note)


def _is_whole(content: bytes) -> bool:
    return content.startswith(_SIGNATURE) and b"IEND" in content[-12:]


def _uri(content: bytes) -> str:
    kind = "png" if content.startswith(_SIGNATURE) else "jpeg"
    return data_uri(content, kind) if content else ""


def _known(name: str) -> tuple[int, str, str]:
    """Where a figure so called stands among others, its title, and what one sees."""
    for place, (pattern, title, says) in enumerate(_KNOWN):
        if match := re.fullmatch(pattern, name):
            return place, title.format(*map(network, match.groups())), says
    return len(_KNOWN), name.replace("_", " ").capitalize(), ""


def _shrunk(content: bytes) -> bytes:
    """A JPEG of at most so many pixels."""
    with Image.open(io.BytesIO(content)) as image:
        fraction = min(1.0, (SHRUNK / (image.width * image.height)) ** 0.5)
        size = (max(1, int(image.width * fraction)), max(1, int(image.height * fraction)))
        # White is what figures are seen on.
        whole = Image.new("RGB", image.size, "white")
        opaque = image.convert("RGBA")
        whole.paste(opaque, mask=opaque)
    file = io.BytesIO()
    whole.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=85)
    return file.getvalue()


def _size(content: bytes) -> tuple[int, int]:
    if content.startswith(_SIGNATURE):
        width, height = struct.unpack(">II", content[16:24])
        return width, height
    if not content:
        return 0, 0
    with Image.open(io.BytesIO(content)) as image:
        return image.size
