"""Grids of images: a row per class, a column per source or per run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cwx.report.image_sources import REAL, ImageSource, image_sources
from cwx.report.inline_images import (
    MAX_BYTES,
    MAX_COUNT,
    InlineImage,
    encode_images,
    fit_limits,
)
from cwx.report.run import RunContents
from cwx.report.sweep_axes import Point

# Images per class and run in the grid of a sweep.
PER_RUN = 3
# In CSS pixels: the width of a page's images, of class names and of gaps.
_PAGE_WIDTH, _NAMES_WIDTH, _GAP = 1190, 110, 15
# The smallest and the largest side of an image, in CSS pixels.
_MIN_TILE, _MAX_TILE = 36, 160
# Larger images may be reduced to fit the page; smaller ones are shown at a whole multiple.
_SMALL = 64
# More classes than this do not fit on a screen.
_MANY_CLASSES = 20
# The source index of real images in the grid of a sweep.
_REFERENCE = -1


@dataclass(frozen=True)
class GridBlock:
    """Images of one source by class; `note` states why there are none."""

    by_class: Mapping[str, Sequence[InlineImage]]
    note: str = ""


@dataclass(frozen=True)
class GridColumn:
    """One column: blocks by the index of their source.

    Attributes:
        heading: shared with neighbouring columns.
        is_reference: whether it is shown with every source.
    """

    title: str
    blocks: Mapping[int, GridBlock]
    heading: str = ""
    is_reference: bool = False


@dataclass(frozen=True)
class ImageGrid:
    """Images by class.

    Attributes:
        sources: titles and meanings of the sources that a reader can select.
        single_source: whether one source is shown at a time.
        tile: the side of an image in CSS pixels, a whole multiple of `native` for small images.
        native: the side of the largest image in its own pixels.
        max_per_cell: the number of images in the fullest cell.
        note: the limits that apply.
    """

    classes: Sequence[str]
    columns: Sequence[GridColumn]
    sources: Sequence[tuple[str, str]]
    single_source: bool
    tile: int
    native: int
    max_per_cell: int
    note: str

    @property
    def is_small(self) -> bool:
        """Whether images are shown at whole multiples of their size only."""
        return self.native <= _SMALL

    def meanings(self) -> list[tuple[str, str]]:
        """Each meaning once, with the titles of its sources."""
        titles_by_meaning: dict[str, list[str]] = {}
        for title, meaning in self.sources:
            if meaning:
                titles_by_meaning.setdefault(meaning, []).append(title)
        return [(", ".join(titles), meaning) for meaning, titles in titles_by_meaning.items()]

    def headings(self) -> list[tuple[str, int]]:
        """The headings above the columns, and the number of columns of each."""
        headings: list[tuple[str, int]] = []
        for column in self.columns:
            if headings and headings[-1][0] == column.heading:
                headings[-1] = (column.heading, headings[-1][1] + 1)
            else:
                headings.append((column.heading, 1))
        return headings


def run_grid(run: RunContents) -> ImageGrid | None:
    """A column per source of a run; ``None`` if the run has no images."""
    sources = image_sources(run)
    if not sources:
        return None
    limits = fit_limits(sources)
    real_limits = replace(limits, per_class=min(limits.per_class, _method_images(sources)))
    blocks = [
        GridBlock(encode_images(s, real_limits if s.key in REAL else limits, run.class_name))
        for s in sources
    ]
    columns = [
        GridColumn(source.title, {index: block})
        for index, (source, block) in enumerate(zip(sources, blocks, strict=True))
    ]
    explained = [b.by_class for b, s in zip(blocks, sources, strict=True) if s.key not in REAL]
    # If methods explain some classes only, the others are not shown.
    classes = _ordered_classes(explained or [b.by_class for b in blocks], run.classes)
    titles = [(s.title, s.meaning) for s in sources]
    return _grid(classes, columns, titles, limits.note, single_source=False)


def sweep_grid(points: Sequence[Point], *, fraction: float) -> ImageGrid | None:
    """A column per point of a sweep, for one source at a time, and a column of real images.

    Args:
        fraction: of the page's limits, in 0-1.
    """
    by_point = [[(run, image_sources(run)) for run in point.runs] for point in points]
    pairs = [(run, source) for runs in by_point for run, sources in runs for source in sources]
    sources = [source for _, source in pairs]
    real = next((pair for pair in pairs if pair[1].key == "real"), None)
    keys = list(dict.fromkeys(s.key for s in sources if s.key != "real"))
    if not keys and real is None:
        return None
    limits = fit_limits(
        sources,
        per_class=min(PER_RUN, _method_images(sources)),
        max_bytes=int(fraction * MAX_BYTES),
        max_count=int(fraction * MAX_COUNT),
    )
    columns = []
    if real is not None:
        run, source = real
        reference = GridBlock(encode_images(source, limits, run.class_name))
        columns.append(GridColumn(source.title, {_REFERENCE: reference}, is_reference=True))
    for point, runs in zip(points, by_point, strict=True):
        blocks = {}
        for index, key in enumerate(keys):
            of_key = [
                (run, s) for run, sources_of_run in runs for s in sources_of_run if s.key == key
            ]
            images = [
                encode_images(s, limits, run.class_name, f", {point.text}") for run, s in of_key
            ]
            blocks[index] = GridBlock(_merged(images), note="" if of_key else _reason(point.runs))
        heading = ", ".join(part for part in (point.block, point.axis) if part)
        columns.append(GridColumn(point.label, blocks, heading=heading))
    titles = [next((s.title, s.meaning) for s in sources if s.key == key) for key in keys]
    order = list(dict.fromkeys(name for point in points for r in point.runs for name in r.classes))
    explained = [
        block.by_class
        for column in columns
        for index, block in column.blocks.items()
        if index != _REFERENCE and keys[index] not in REAL
    ]
    every_block = [block.by_class for column in columns for block in column.blocks.values()]
    classes = _ordered_classes(explained if any(explained) else every_block, order)
    return _grid(classes, columns, titles, limits.note, single_source=True)


def _grid(
    classes: Sequence[str],
    columns: Sequence[GridColumn],
    titles: Sequence[tuple[str, str]],
    note: str,
    *,
    single_source: bool,
) -> ImageGrid:
    widths = [
        max((len(i) for b in column.blocks.values() for i in b.by_class.values()), default=1)
        for column in columns
    ]
    blocks = [block for column in columns for block in column.blocks.values()]
    images = [image for b in blocks for of_class in b.by_class.values() for image in of_class]
    native = max((max(image.width, image.height) for image in images), default=32)
    fitting = (_PAGE_WIDTH - _NAMES_WIDTH - _GAP * len(columns)) // max(sum(widths), 1) - 2
    # Large images keep at most their own size; small ones are enlarged.
    enlarged = 96 if len(classes) <= _MANY_CLASSES else 64
    tile = max(_MIN_TILE, min(fitting, _MAX_TILE, max(native, enlarged)))
    if native <= max(tile, _SMALL):
        tile = native * max(1, tile // native)
    return ImageGrid(
        classes, columns, titles, single_source, tile, native, max(widths, default=1), note
    )


def _merged(parts: Iterable[Mapping[str, Sequence[InlineImage]]]) -> dict[str, list[InlineImage]]:
    merged: dict[str, list[InlineImage]] = {}
    for by_class in parts:
        for name, images in by_class.items():
            merged.setdefault(name, []).extend(images)
    return merged


def _ordered_classes(blocks: Iterable[Mapping[str, object]], order: Sequence[str]) -> list[str]:
    """The classes of the blocks, in the order of the data."""
    names = {name for by_class in blocks for name in by_class}
    known = [name for name in order if name in names]
    return known + sorted(names - set(known))


def _method_images(sources: Iterable[ImageSource]) -> int:
    """The largest number of images per class of any method; `PER_RUN` without methods."""
    return max((s.max_per_class for s in sources if s.key not in REAL), default=PER_RUN)


def _reason(runs: Sequence[RunContents]) -> str:
    """Why a point has no images of a source."""
    states = dict.fromkeys(run.state for run in runs)
    return ", ".join("no images" if state == "finished" else state for state in states)
