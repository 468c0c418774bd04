"""What was swept in a set of runs: the settings that differ, and how runs lie along them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwx.report.run import Run

# Where things lie and how they are logged changes no result.
NO_AXES = ("store", "logger", "data.source.root", "data.source.download", "resume")
# Runs that differ by these alone repeat each other.
_SEEDS = ("seed", "seeds", "held_out")
# Without overrides to go by, so many settings that differ are named at most.
_MOST = 6
_ABSENT = "–"
# Of what follows from other settings.
_DERIVED = "derived"


@dataclass(frozen=True)
class Axis:
    """A setting that differs.

    Attributes:
        key: as on a command line.
        values: in their order: numbers by size, others as they first appear.
        numeric: whether all of them are numbers.
    """

    key: str
    values: Sequence[Any]
    numeric: bool

    @property
    def title(self) -> str:
        """For people: of a group, its name, not the place it is put."""
        return self.key.partition("@")[0]

    def at(self, run: Run) -> Any:
        return setting(run, self.key)

    def place(self, run: Run) -> int:
        """The run's place along the axis; the end where it says nothing of it."""
        value = self.at(run)
        same = (place for place, other in enumerate(self.values) if _equal(value, other))
        return next(same, len(self.values))


@dataclass(frozen=True)
class Point:
    """Runs that differ by seeds alone, at one place along every axis.

    Attributes:
        block: what it shares with its neighbours, in words; empty if all points are neighbours.
        label: what sets it apart from them.
        axis: what the label is a value of; empty where the label says all.
    """

    block: str
    label: str
    axis: str
    runs: Sequence[Run]

    @property
    def words(self) -> str:
        """All of it."""
        own = f"{self.axis} {self.label}" if self.axis else self.label
        return ", ".join(part for part in (self.block, own) if part)


def swept(runs: Sequence[Run]) -> list[Axis]:
    """The settings that were swept: overrides that differ; without any, choices or settings."""
    known = [run for run in runs if tells(run)]
    overridden = list(dict.fromkeys(key for run in known for key in run.overrides))
    axes = _differing(known, [key for key in overridden if not key.startswith(NO_AXES)])
    if axes or len(known) < 2:
        return axes
    chosen = list(dict.fromkeys(key for run in known for key in run.choices))
    axes = _differing(known, [key for key in chosen if not key.startswith((*NO_AXES, "scale"))])
    if axes:
        return axes[:_MOST]
    leaves = list(dict.fromkeys(key for run in known for key in _leaves(run.settings)))
    return _differing(known, [key for key in leaves if not key.startswith(NO_AXES)])[:_MOST]


def tells(run: Run) -> bool:
    """Whether it is known where a run lies: a damaged one may say nothing."""
    return bool(run.settings or run.overrides)


def is_seed(axis: Axis) -> bool:
    return axis.key.rpartition(".")[2] in _SEEDS


def setting(run: Run, key: str) -> Any:
    """What a run has there: a setting, the option of a group, or what was given for it."""
    value: Any = run.settings
    for part in key.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    if isinstance(value, Mapping) or value == _ABSENT:
        value = run.choices.get(key, _plain(run.overrides.get(key, _ABSENT)))
    if isinstance(value, str) and "${" in value:
        return _DERIVED
    return json.dumps(value) if isinstance(value, list | dict) else value


def _plain(text: str) -> Any:
    """What is written on a command line, a number where it is one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def worded(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "null" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def points(runs: Sequence[Run], axes: Sequence[Axis]) -> tuple[Axis | None, list[Point]]:
    """Where runs lie: along one axis, in blocks of the others; repeated seeds together.

    The axis along which points lie in a block is that of most values, numbers first; there is
    none if that would leave blocks of one point each.
    """
    seeds = [axis for axis in axes if is_seed(axis)]
    axes = _independent([axis for axis in axes if not is_seed(axis)], runs)
    together: dict[tuple[int, ...], list[Run]] = {}
    for run in runs:
        together.setdefault(tuple(axis.place(run) for axis in axes), []).append(run)
    if not axes:
        own = _independent(seeds, runs)
        return None, [Point("", _at(own, run) or run.folder.name, "", [run]) for run in runs]
    across = max(axes, key=lambda axis: (axis.numeric, len(axis.values)))
    others = [axis for axis in axes if axis is not across]
    blocks = {tuple(axis.place(found[0]) for axis in others) for found in together.values()}
    if others and len(blocks) * 3 > len(together) * 2:
        return None, [Point("", _at(axes, found[0]), "", found) for found in _sorted(together)]

    def order(found: Sequence[Run]) -> tuple[int, ...]:
        return tuple(axis.place(found[0]) for axis in (*others, across))

    return across, [
        Point(_at(others, found[0]), worded(across.at(found[0])), across.title, found)
        for found in sorted(together.values(), key=order)
    ]


def _sorted(together: Mapping[tuple[int, ...], list[Run]]) -> list[list[Run]]:
    return [together[key] for key in sorted(together)]


def _at(axes: Sequence[Axis], run: Run) -> str:
    return ", ".join(f"{axis.title} {worded(axis.at(run))}" for axis in axes)


def _independent(axes: Sequence[Axis], runs: Sequence[Run]) -> list[Axis]:
    """Without those that another tells: settings that were changed together are one axis."""
    kept: list[Axis] = []
    for axis in axes:
        if not any(_same(axis, other, runs) for other in kept):
            kept.append(axis)
    return kept


def _same(one: Axis, other: Axis, runs: Sequence[Run]) -> bool:
    pairs = {(one.place(run), other.place(run)) for run in runs}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _differing(runs: Sequence[Run], keys: Sequence[str]) -> list[Axis]:
    axes = []
    for key in keys:
        values: list[Any] = []
        for run in runs:
            value = setting(run, key)
            if not any(_equal(value, other) for other in values):
                values.append(value)
        if len(values) > 1:
            numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
            axes.append(Axis(key, sorted(values) if numeric else values, numeric))
    return axes


def _equal(one: Any, other: Any) -> bool:
    # True is 1 to Python, and no rate.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _leaves(settings: Mapping[str, Any], head: str = "") -> list[str]:
    found = []
    for key, value in settings.items():
        name = f"{head}{key}"
        found += _leaves(value, f"{name}.") if isinstance(value, Mapping) else [name]
    return found
