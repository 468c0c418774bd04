"""Selects runs by state, experiment, settings and choices."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from cwx.cli.parser import suggestion
from cwx.errors import UserError, printable
from cwx.functional.class_names import class_index, names_by_number
from cwx.storage.regular_files import read_regular_text
from cwx.storage.run_files import CLASSES
from cwx.storage.runs import STATES, Run

_REFERENCE = re.compile(r"\$\{(\w[\w.]*)\}")
_MISSING = object()
# Settings that take a class by its name or index.
_CLASS_SETTINGS = frozenset({"corruption.target"})
# Of a run's table of classes.
_MAX_BYTES = 2**24
_DEEPEST = 20


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
        selected = [
            run
            for run in selected
            if fnmatchcase(run.experiment, experiment)
            or fnmatchcase(run.experiment.partition(" ")[0], experiment)
        ]
    for text in filters:
        key, _, pattern = text.partition("=")
        values = [(run, setting(run, key)) for run in selected]
        if selected and all(value is _MISSING for _, value in values):
            known = {name for run in selected for name in _names(run)}
            raise UserError(f"no run has a setting {printable(key)}: {suggestion(key, known)}")
        selected = [
            run
            for run, value in values
            if value is not _MISSING and _matches(value, pattern, _classes(run, key))
        ]
    return selected


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


def _matches(value: Any, pattern: str, classes: Sequence[str]) -> bool:
    of_class = _names_of_class(value, classes)
    texts, patterns = [_format(value), *of_class], [pattern, *pattern.split(",")]
    numeric = not of_class and not isinstance(value, str)
    return any(_equal(text, part, numeric=numeric) for text in texts for part in patterns)


def _classes(run: Run, key: str) -> Sequence[str]:
    """The names of the run's classes if the setting `key` takes a class; else none."""
    if key not in _CLASS_SETTINGS:
        return ()
    try:
        text = read_regular_text(run.folder / CLASSES, _MAX_BYTES)
        return [row["class"] for row in csv.DictReader(io.StringIO(text))]
    except (OSError, ValueError, KeyError, csv.Error):
        return ()


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
