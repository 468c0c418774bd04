"""Pictures in a wall: a row a class, the same class in the same row whatever stands beside it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cwx.report.image_sources import REAL, Source, sources
from cwx.report.inline_images import BUDGET, COUNT, Picture, allowance, encoded
from cwx.report.run import Run
from cwx.report.sweep_axes import Point

# Pictures a class and run in a grid of several runs: more would part what is to be compared.
PER_RUN = 3
# The width of a page that pictures may fill, and how large one is then shown, in CSS pixels.
_ROOM, _NAMES, _GAP = 1190, 110, 15
_LEAST, _MOST = 36, 160
# More classes than this do not fit on a screen.
_MANY = 20


@dataclass(frozen=True)
class Block:
    """Pictures of one origin by class; `note` says why there are none."""

    title: str
    by_class: Mapping[str, Sequence[Picture]]
    note: str = ""


@dataclass(frozen=True)
class Column:
    """What stands side by side in one column: blocks by the number of their source.

    Attributes:
        above: what it shares with its neighbours.
        always: a reference to compare with, shown whichever source is.
    """

    title: str
    blocks: Mapping[int, Block]
    above: str = ""
    always: bool = False


@dataclass(frozen=True)
class Wall:
    """Pictures by class.

    Attributes:
        sources: the titles and meanings that can be chosen among.
        alone: whether one source is shown at a time.
        tile: the size to show a picture at, in CSS pixels.
        most: pictures in the fullest cell.
        note: what is left out.
    """

    classes: Sequence[str]
    columns: Sequence[Column]
    sources: Sequence[tuple[str, str]]
    alone: bool
    tile: int
    most: int
    note: str

    @property
    def count(self) -> int:
        blocks = (block for column in self.columns for block in column.blocks.values())
        return sum(len(p) for block in blocks for p in block.by_class.values())

    def meanings(self) -> list[tuple[str, str]]:
        """What a picture of each source is; sources of the same meaning together."""
        found: dict[str, list[str]] = {}
        for title, meaning in self.sources:
            if meaning:
                found.setdefault(meaning, []).append(title)
        return [(", ".join(titles), meaning) for meaning, titles in found.items()]

    def bands(self) -> list[tuple[str, int]]:
        """What columns share, and how many of them do."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.above:
                found[-1] = (column.above, found[-1][1] + 1)
            else:
                found.append((column.above, 1))
        return found


def wall_of_run(run: Run) -> Wall | None:
    """A column for each source of a run; nothing if it has left no pictures."""
    shown = sources(run)
    if not shown:
        return None
    allowed = allowance(shown)
    beside = replace(allowed, per_class=min(allowed.per_class, _most(shown)))
    blocks = [
        Block(s.title, encoded(s, beside if s.key in REAL else allowed, run.class_name))
        for s in shown
    ]
    columns = [Column(b.title, {place: b}) for place, b in enumerate(blocks)]
    explained = [b.by_class for b, s in zip(blocks, shown, strict=True) if s.key not in REAL]
    # Where methods show some classes alone, real images of all others would bury them.
    classes = _ordered(explained or [b.by_class for b in blocks], run.classes)
    named = [(s.title, s.meaning) for s in shown]
    return _wall(classes, columns, named, shown, allowed.note, alone=False)


def wall_of_runs(points: Sequence[Point], *, fraction: float) -> Wall | None:
    """A column for each point of a sweep, the sources to choose among, real images beside them.

    Args:
        fraction: of what a page may carry.
    """
    left = [[(run, sources(run)) for run in point.runs] for point in points]
    every = [s for found in left for _, of_run in found for s in of_run]
    real = next(
        ((run, s) for found in left for run, of_run in found for s in of_run if s.key == "real"),
        None,
    )
    keys = list(dict.fromkeys(s.key for s in every if s.key != "real"))
    if not keys and real is None:
        return None
    budget, count = int(fraction * BUDGET), int(fraction * COUNT)
    allowed = allowance(every, most=min(PER_RUN, _most(every)), budget=budget, count=count)
    columns = []
    if real is not None:
        shown = encoded(real[1], allowed, real[0].class_name)
        columns.append(Column(real[1].title, {-1: Block(real[1].title, shown)}, always=True))
    for point, found in zip(points, left, strict=True):
        blocks = {}
        for place, key in enumerate(keys):
            of_key = [(run, s) for run, of_run in found for s in of_run if s.key == key]
            pictures = [encoded(s, allowed, r.class_name, f", {point.words}") for r, s in of_key]
            note = "" if of_key else _reason(point.runs)
            blocks[place] = Block(point.label, _merged(pictures), note=note)
        above = ", ".join(part for part in (point.block, point.axis) if part)
        columns.append(Column(point.label, blocks, above=above))
    named = [next((s.title, s.meaning) for s in every if s.key == key) for key in keys]
    order = list(dict.fromkeys(name for point in points for r in point.runs for name in r.classes))
    explained = [
        block.by_class
        for column in columns
        for place, block in column.blocks.items()
        if place >= 0 and keys[place] not in REAL
    ]
    every_class = [block.by_class for column in columns for block in column.blocks.values()]
    classes = _ordered(explained if any(explained) else every_class, order)
    return _wall(classes, columns, named, every, allowed.note, alone=True)


def _wall(
    classes: Sequence[str],
    columns: Sequence[Column],
    named: Sequence[tuple[str, str]],
    shown: Sequence[Source],
    note: str,
    *,
    alone: bool,
) -> Wall:
    widths = [
        max((len(p) for b in column.blocks.values() for p in b.by_class.values()), default=1)
        for column in columns
    ]
    native = max((max(s.shape[1:]) for s in shown), default=32)
    fitting = (_ROOM - _NAMES - _GAP * len(columns)) // max(sum(widths), 1) - 2
    # Large pictures need no more than their own size; small ones may grow.
    roomy = 96 if len(classes) <= _MANY else 64
    tile = max(_LEAST, min(fitting, _MOST, max(native, roomy)))
    return Wall(classes, columns, named, alone, tile, max(widths, default=1), note)


def _merged(pictures: Iterable[Mapping[str, Sequence[Picture]]]) -> dict[str, list[Picture]]:
    together: dict[str, list[Picture]] = {}
    for of_run in pictures:
        for name, found in of_run.items():
            together.setdefault(name, []).extend(found)
    return together


def _ordered(shown: Iterable[Mapping[str, object]], order: Sequence[str]) -> list[str]:
    """The classes that are shown, in the order of the data."""
    names = {name for by_class in shown for name in by_class}
    known = [name for name in order if name in names]
    return known + sorted(names - set(known))


def _most(shown: Iterable[Source]) -> int:
    """As many real images a class as the richest method has pictures, or as there are."""
    methods = [s.fullest for s in shown if s.key not in REAL]
    return max(methods, default=PER_RUN)


def _reason(runs: Sequence[Run]) -> str:
    states = dict.fromkeys(run.state for run in runs)
    return ", ".join("no such pictures" if state == "finished" else state for state in states)
