"""Selects runs by state, experiment, settings and choices."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from os.path import lexists
from pathlib import Path
from typing import Any

from cwx.cli.parser import suggestion
from cwx.errors import UserError, printable
from cwx.functional.class_names import class_index, names_by_number
from cwx.storage.regular_files import read_regular_text
from cwx.storage.run_files import CLASSES
from cwx.storage.run_folders import read_fault
from cwx.storage.runs import STATES, Run

_REFERENCE = re.compile(r"\$\{(\w[\w.]*)\}")
_MISSING = object()
# Settings that take a class by its name or index.
_CLASS_SETTINGS = frozenset({"corruption.target"})
# Of a run's table of classes.
_MAX_BYTES = 2**24
_DEEPEST = 20


class _UnreadableError(Exception):
    """A file of a run that decides whether it matches is damaged."""


def select_runs(
    runs: Sequence[Run],
    filters: Sequence[str],
    *,
    experiment: str | None,
    states: str | None,
) -> list[Run]:
    """The runs that match all filters.

    Args:
        filters: each ``key=value``, of a setting or a choice; a value may have ``*`` and commas.
        experiment: a name with or without its scale; may have ``*``.
        states: names separated by commas.

    Raises:
        UserError: an unknown state, or a setting that no run has.
    """
    wanted = states.split(",") if states else STATES
    for state in wanted:
        if state not in STATES:
            raise UserError(f"there is no state {printable(state)!r}: {suggestion(state, STATES)}")
    selected = [run for run in runs if run.state in wanted]
    if experiment is not None:
        selected = [run for run in selected if _matches_experiment(run, experiment) is True]
    for text in filters:
        key = text.partition("=")[0]
        if selected and all(setting(run, key) is _MISSING for run in selected):
            known = {name for run in selected for name in _names(run)}
            raise UserError(f"no run has a setting {printable(key)}: {suggestion(key, known)}")
        selected = [run for run in selected if _matches_filter(run, text) is True]
    return selected


def undecided_runs(
    runs: Sequence[Run],
    filters: Sequence[str],
    *,
    experiment: str | None,
    states: str | None,
) -> dict[Path, str]:
    """The folders of runs that may match, but whose files are damaged; with the damage of each.

    Args:
        filters: as those of `select_runs`, like the others.
    """
    wanted = states.split(",") if states else STATES
    damage: dict[Path, str] = {}
    for run in runs:
        answers = [_matches_filter(run, text) for text in filters]
        if experiment is not None:
            answers.append(_matches_experiment(run, experiment))
        faults = [answer for answer in answers if isinstance(answer, str)]
        if faults and False not in answers and run.state in wanted:
            damage[run.folder] = faults[0]
    return damage


def setting(run: Run, key: str) -> Any:
    """The value of `key` in a run's configuration, or the choice of the group `key`."""
    value = _at(run.configuration, key)
    # Follow absolute references; relative ones are returned as they are.
    for _ in range(5):
        if not (isinstance(value, str) and (reference := _REFERENCE.fullmatch(value))):
            break
        value = _at(run.configuration, reference[1])
    if not isinstance(value, Mapping) and value is not _MISSING:
        return value
    if key in run.choices:
        return run.choices[key]
    values = [o.partition("=")[2] for o in run.overrides if o.lstrip("+").partition("=")[0] == key]
    return values[-1] if values else _MISSING


def _at(configuration: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(configuration, list) and part.isdecimal():
            configuration = dict(enumerate(configuration)).get(int(part), _MISSING)
        elif isinstance(configuration, Mapping):
            configuration = configuration.get(part, _MISSING)
        else:
            return _MISSING
    return configuration


def _names(run: Run) -> set[str]:
    """All settings and groups of a run."""
    names = set(run.choices)

    def add(value: Any, path: tuple[str, ...]) -> None:
        # A damaged file may refer to itself.
        if isinstance(value, Mapping) and len(path) < _DEEPEST:
            for key, item in value.items():
                add(item, (*path, str(key)))
        else:
            names.add(".".join(path))

    add(run.configuration, ())
    return names


def _matches_experiment(run: Run, pattern: str) -> bool | str:
    """Whether a run is of an experiment; the damage if its files do not say it."""
    name = run.experiment
    faults = [*run.unreadable, *run.settings_damage]
    if not name and faults:
        return faults[0]
    return fnmatchcase(name, pattern) or fnmatchcase(name.partition(" ")[0], pattern)


def _matches_filter(run: Run, text: str) -> bool | str:
    """Whether a run matches ``key=value``; the damage if its files do not say it."""
    key, _, pattern = text.partition("=")
    value = setting(run, key)
    if value is _MISSING:
        return next(iter((*run.settings_damage, *run.unreadable)), False)
    try:
        return _matches(value, pattern, _classes(run, key))
    except _UnreadableError as error:
        return _matches(value, pattern, ()) or str(error)


def _matches(value: Any, pattern: str, classes: Sequence[str]) -> bool:
    of_class = _names_of_class(value, classes)
    texts, patterns = [_format(value), *of_class], [pattern, *pattern.split(",")]
    numeric = not of_class and not isinstance(value, str)
    return any(_equal(text, part, numeric=numeric) for text in texts for part in patterns)


def _classes(run: Run, key: str) -> Sequence[str]:
    """The names of the run's classes if the setting `key` takes a class; else none.

    Raises:
        _UnreadableError: the table of classes is damaged.
    """
    if key not in _CLASS_SETTINGS or not lexists(run.folder / CLASSES):
        return ()
    try:
        text = read_regular_text(run.folder / CLASSES, _MAX_BYTES)
        return [row["class"] for row in csv.DictReader(io.StringIO(text))]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise _UnreadableError(read_fault(error, CLASSES)) from error


def _names_of_class(value: Any, classes: Sequence[str]) -> list[str]:
    """The name of the class that a setting means, and its index if no class is a number."""
    if not classes:
        return []
    try:
        index = class_index(value, classes, "")
    except ValueError:
        return []
    return [classes[index], *([] if names_by_number(classes) else [str(index)])]


def _format(value: Any) -> str:
    """A value as on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_format, value))}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def _equal(text: str, pattern: str, *, numeric: bool) -> bool:
    """Whether a pattern matches; of a number, whether it has the same value.

    A text is no number, also if it looks like one: the class 007 is not the class 7.
    """
    if text == pattern or fnmatchcase(text, pattern):
        return True
    try:
        return numeric and float(text) == float(pattern)
    except ValueError:
        return False
