"""The swept settings of a set of runs, and the position of each run along them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwx.report.run import RunContents
from cwx.storage.json_files import parse_json

# Settings of storage and logging, which change no result.
NO_AXES = ("store", "logger", "data.source.download", "resume")
# Runs that differ only in these repeat each other.
_SEEDS = ("seed", "seeds", "held_out")
# At most so many axes if no override tells which settings were swept.
_MAX_AXES = 6
_MAX_OVERRIDDEN = 20
_ABSENT = "–"
# The value of a setting that is computed from other settings.
_DERIVED = "derived"


@dataclass(frozen=True)
class Axis:
    """A setting that differs between runs.

    Attributes:
        key: as on a command line.
        values: numbers in ascending order, others in order of first appearance.
        numeric: whether all values are numbers.
    """

    key: str
    values: Sequence[Any]
    numeric: bool

    @property
    def title(self) -> str:
        """The key; of a configuration group, without its package (``group@package``)."""
        return self.key.partition("@")[0]

    def value_of(self, run: RunContents) -> Any:
        return setting(run, self.key)

    def index_of(self, run: RunContents) -> int:
        """The index of the run's value in `values`; their number if it is not among them."""
        value = self.value_of(run)
        same = (index for index, other in enumerate(self.values) if _equal(value, other))
        return next(same, len(self.values))


@dataclass(frozen=True)
class Point:
    """Runs with the same value on every axis, which differ only in seeds.

    Attributes:
        block: the values on all axes but one, as text; empty if there is one axis.
        label: the value on the remaining axis.
        axis: the title of the remaining axis; empty if the label states all axes.
    """

    block: str
    label: str
    axis: str
    runs: Sequence[RunContents]

    @property
    def text(self) -> str:
        """The values on all axes."""
        own = f"{self.axis} {self.label}" if self.axis else self.label
        return ", ".join(part for part in (self.block, own) if part)


def swept_axes(runs: Sequence[RunContents]) -> list[Axis]:
    """The swept settings: overrides that differ, else configuration choices, else settings."""
    known = [run for run in runs if has_settings(run)]
    overridden = list(dict.fromkeys(key for run in known for key in run.overrides))
    axes = _differing(known, [key for key in overridden if not key.startswith(NO_AXES)])
    if axes or len(known) < 2:
        return axes[:_MAX_OVERRIDDEN]
    chosen = list(dict.fromkeys(key for run in known for key in run.choices))
    axes = _differing(known, [key for key in chosen if not key.startswith((*NO_AXES, "scale"))])
    if axes:
        return axes[:_MAX_AXES]
    leaves = list(dict.fromkeys(key for run in known for key in _leaf_keys(run.settings)))
    return _differing(known, [key for key in leaves if not key.startswith(NO_AXES)])[:_MAX_AXES]


def has_settings(run: RunContents) -> bool:
    """Whether the run's position is known; that of a damaged run may not be."""
    return bool(run.settings or run.overrides)


def is_seed(axis: Axis) -> bool:
    return axis.key.rpartition(".")[2] in _SEEDS


def setting(run: RunContents, key: str) -> Any:
    """The run's value for a key: a setting, the option of a group, or an override."""
    value: Any = run.settings
    for part in key.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    if isinstance(value, Mapping) or value == _ABSENT:
        value = run.choices.get(key, _parsed(run.overrides.get(key, _ABSENT)))
    if isinstance(value, str) and "${" in value:
        return _DERIVED
    return json.dumps(value) if isinstance(value, list | dict) else value


def _parsed(text: str) -> Any:
    """The value of an override: a number if it is one."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def format_setting(value: Any) -> str:
    """A setting's value as text of at most 40 characters; of a longer path its end."""
    text = f"{value:.6g}" if isinstance(value, float) else "null" if value is None else str(value)
    if len(text) <= 40:
        return text
    return f"…{text[-39:]}" if "/" in text else f"{text[:39]}…"


def sweep_points(
    runs: Sequence[RunContents], axes: Sequence[Axis]
) -> tuple[Axis | None, list[Point]]:
    """The points of a sweep along its main axis, in blocks of the other axes.

    The main axis is the one with the most values, numeric axes first. There is none if most
    blocks would then have a single point. Runs that differ only in seeds share a point.

    Returns:
        The main axis, and the points in order.
    """
    seeds = [axis for axis in axes if is_seed(axis)]
    axes = _independent([axis for axis in axes if not is_seed(axis)], runs)
    by_position: dict[tuple[int, ...], list[RunContents]] = {}
    for run in runs:
        by_position.setdefault(tuple(axis.index_of(run) for axis in axes), []).append(run)
    if not axes:
        own = _independent(seeds, runs)
        return None, [Point("", _position(own, run) or run.folder.name, "", [run]) for run in runs]
    main = max(axes, key=lambda axis: (axis.numeric, len(axis.values)))
    others = [axis for axis in axes if axis is not main]
    blocks = {
        tuple(axis.index_of(repeats[0]) for axis in others) for repeats in by_position.values()
    }
    if others and len(blocks) * 3 > len(by_position) * 2:
        return None, [
            Point("", _position(axes, by_position[key][0]), "", by_position[key])
            for key in sorted(by_position)
        ]

    def order(repeats: Sequence[RunContents]) -> tuple[int, ...]:
        return tuple(axis.index_of(repeats[0]) for axis in (*others, main))

    return main, [
        Point(
            _position(others, repeats[0]),
            format_setting(main.value_of(repeats[0])),
            main.title,
            repeats,
        )
        for repeats in sorted(by_position.values(), key=order)
    ]


def _position(axes: Sequence[Axis], run: RunContents) -> str:
    return ", ".join(f"{axis.title} {format_setting(axis.value_of(run))}" for axis in axes)


def _independent(axes: Sequence[Axis], runs: Sequence[RunContents]) -> list[Axis]:
    """The axes without those that another determines: settings changed together are one axis."""
    independent: list[Axis] = []
    for axis in axes:
        if not any(_equivalent(axis, other, runs) for other in independent):
            independent.append(axis)
    return independent


def _equivalent(axis: Axis, other: Axis, runs: Sequence[RunContents]) -> bool:
    pairs = {(axis.index_of(run), other.index_of(run)) for run in runs}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _differing(runs: Sequence[RunContents], keys: Sequence[str]) -> list[Axis]:
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


def _equal(value: Any, other: Any) -> bool:
    # In Python, True == 1.
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _leaf_keys(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        keys += _leaf_keys(value, f"{name}.") if isinstance(value, Mapping) else [name]
    return keys
