"""Which of many runs are asked for: by state, experiment, settings and choices."""

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from cwx.cli.parser import meant
from cwx.cli.tables import plain
from cwx.errors import UserError
from cwx.storage.runs import STATES, Run

_REFERENCE = re.compile(r"\$\{(\w[\w.]*)\}")
_MISSING = object()
_DEEPEST = 20


def kept(
    runs: Sequence[Run],
    filters: Sequence[str],
    *,
    experiment: str | None,
    states: str | None,
) -> list[Run]:
    """The runs that are asked for.

    Args:
        filters: ``key=value`` each, of a setting or a choice.
        experiment: with its scale or without.
        states: one, or several with commas.

    Raises:
        UserError: there is no such state, or no run has such a setting.
    """
    wanted = states.split(",") if states else STATES
    for state in wanted:
        if state not in STATES:
            raise UserError(f"there is no state {plain(state)!r}: {meant(state, STATES)}")
    left = [run for run in runs if run.state in wanted]
    if experiment is not None:
        left = [
            run
            for run in left
            if fnmatchcase(run.experiment, experiment)
            or fnmatchcase(run.experiment.partition(" ")[0], experiment)
        ]
    for one in filters:
        key, _, pattern = one.partition("=")
        values = [(run, setting(run, key)) for run in left]
        if left and all(value is _MISSING for _, value in values):
            known = {name for run in left for name in _names(run)}
            raise UserError(f"no run has a setting {plain(key)}: {meant(key, known)}")
        left = [run for run, value in values if value is not _MISSING and _matches(value, pattern)]
    return left


def setting(run: Run, key: str) -> Any:
    """What a run's configuration has as `key`, or was chosen of a group of that name."""
    value = _at(run.configuration, key)
    # A reference that is not relative can be followed.
    for _ in range(5):
        if not (isinstance(value, str) and (reference := _REFERENCE.fullmatch(value))):
            break
        value = _at(run.configuration, reference[1])
    if not isinstance(value, Mapping) and value is not _MISSING:
        return value
    if key in run.choices:
        return run.choices[key]
    given = [o.partition("=")[2] for o in run.overrides if o.lstrip("+").partition("=")[0] == key]
    return given[-1] if given else _MISSING


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
    """Every key that may be asked for."""
    found = set(run.choices)

    def add(value: Any, path: tuple[str, ...]) -> None:
        # A damaged file may hold itself.
        if isinstance(value, Mapping) and len(path) < _DEEPEST:
            for key, item in value.items():
                add(item, (*path, str(key)))
        else:
            found.add(".".join(path))

    add(run.configuration, ())
    return found


def _matches(value: Any, pattern: str) -> bool:
    text = _written(value)
    return any(_equal(text, one) for one in [pattern, *pattern.split(",")])


def _written(value: Any) -> str:
    """As on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def _equal(text: str, pattern: str) -> bool:
    try:
        return float(text) == float(pattern)
    except ValueError:
        return text == pattern or fnmatchcase(text, pattern)
