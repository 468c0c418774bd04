"""Checks a configuration against the signatures of its `_target_`s, without importing them."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cwx.cli.config.annotations import (
    MAPPINGS,
    SEQUENCES,
    alternatives,
    arguments_of,
    declared_limits,
    fits,
    is_object,
    type_name,
    type_text,
)
from cwx.cli.config.limits import (
    library_limits,
    shorten,
    unmet_default,
    unmet_limits,
)
from cwx.cli.config.set_by_study import why_not_settable
from cwx.cli.config.signatures import Parameter, Signature, UnknownTargetError, signature
from cwx.errors import UserError, did_you_mean


class Unresolved(str):
    """A text with an interpolation: it may have any value and any type."""

    __slots__ = ()


RESERVED = frozenset({"_target_", "_partial_", "_convert_", "_recursive_", "_args_"})


def check(configuration: Mapping[str, Any], path: str = "") -> None:
    """Check each object of a resolved configuration against the signature of its `_target_`.

    Raises:
        UserError: an unknown key, a value of the wrong type or outside its limits, a missing
            value, or a `_target_` that does not exist.
    """
    if isinstance(configuration["_target_"], Unresolved):
        # Of a saved configuration: it may build anything.
        return
    target = str(configuration["_target_"])
    try:
        expected = signature(target)
    except UnknownTargetError as error:
        raise UserError(f"{_join(path, '_target_')} is {target!r}: {error}") from error
    ours = target.startswith("cwx.")
    for key, value in configuration.items():
        if key in RESERVED:
            continue
        setting = _join(path, str(key))
        if reason := why_not_settable(target, path, str(key)):
            raise UserError(f"{setting} cannot be set: {reason}")
        parameter = _parameter(expected, str(key), setting)
        if parameter and parameter.annotation:
            _check_value(value, parameter.annotation, setting, strict=ours)
        elif isinstance(value, Mapping) and "_target_" in value:
            check(value, setting)
        if not ours:
            _check_limits(value, library_limits(target, str(key)), setting)
        # A class may have the name of any number, such as "nan".
        if not (
            parameter and parameter.annotation and "ClassName" in ast.dump(parameter.annotation)
        ):
            _check_numbers(value, setting)
    if expected and not configuration.get("_partial_"):
        for name, parameter in expected.parameters.items():
            if not parameter.optional and name not in configuration and ours:
                raise UserError(f"{_join(path, name)} is missing: give it a value")


def experiment_name(choices: Mapping[str, Any]) -> str:
    """The name of a run: its experiment, and its scale unless that is "paper"."""
    scale = choices.get("scale", "paper")
    return f"{choices.get('experiment')}{'' if scale == 'paper' else f' {scale}'}"


def first_difference(before: Any, now: Any, unresolved: Any, path: str = "") -> str:
    """The first setting that differs, as "<setting> was … and is …"; empty if all are equal.

    Args:
        before: a configuration with or without interpolations.
        now: another one, resolved.
        unresolved: `now` with its interpolations; a setting equals it, or equals `now`.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        raw = unresolved if isinstance(unresolved, dict) else now
        for key in [*before, *(key for key in now if key not in before)]:
            setting = _join(path, str(key))
            if text := first_difference(before.get(key), now.get(key), raw.get(key), setting):
                return text
        return ""
    if before in (now, unresolved):
        return ""
    return f"{path} was {shorten(repr(before))} and is {shorten(repr(now))}"


def _parameter(expected: Signature | None, key: str, setting: str) -> Parameter | None:
    if expected is None:
        return None
    if key in expected.parameters:
        return expected.parameters[key]
    if expected.open_ended:
        return None
    raise unknown_key(setting, expected.parameters)


def unknown_key(setting: str, valid: Iterable[str]) -> UserError:
    """The error for an unknown key, with the nearest valid one."""
    head, _, key = setting.rpartition(".")
    names = sorted(valid)
    choices = ", ".join(names) or f"one of another {head}, for this one takes no settings"
    remedy = did_you_mean(key, names, f"it may be {choices}", prefix=_join(head, ""))
    return UserError(f"unknown key {setting}: {remedy}")


def _check_value(value: Any, annotation: ast.expr, setting: str, *, strict: bool) -> None:
    """Check a value, and the objects in it if it is an object or a collection."""
    if isinstance(value, Unresolved):
        return
    if isinstance(value, Mapping) and "_target_" in value:
        check(value, setting)
        return
    kinds = alternatives(annotation)
    if isinstance(value, Mapping) and strict:
        _check_mapping(value, kinds, setting)
        return
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = [item for kind in kinds for item in arguments_of(kind, SEQUENCES)]
        for position, item in enumerate(value):
            if items:
                _check_value(item, items[0], f"{setting}[{position}]", strict=strict)
    fitting = [kind for kind in kinds if fits(value, kind, strict=strict)]
    if not fitting:
        wanted = type_text(annotation) if not is_object(kinds) else "an object with a _target_"
        if any(type_name(kind) in SEQUENCES for kind in kinds) and value is not None:
            wanted += f", as in {setting}=[{shorten(value)}]"
        raise UserError(f"{setting} is {shorten(repr(value))}: it takes {wanted}")
    for limits in declared_limits(fitting[0]):
        _check_limits(value, limits, setting)


def _check_limits(value: Any, limits: str, setting: str) -> None:
    """Check a number or a collection against its limits; of a list, each number."""
    numbers = limits and limits[0] in "<>"
    if numbers and isinstance(value, Sequence) and not isinstance(value, str):
        for position, item in enumerate(value):
            _check_limits(item, limits, f"{setting}[{position}]")
        return
    if numbers and (isinstance(value, bool) or not isinstance(value, int | float)):
        return
    if limits and (words := unmet_limits(value, limits)):
        raise UserError(f"{setting} is {shorten(value)}: give {words}")


def _check_numbers(value: Any, setting: str) -> None:
    """Check the numbers that have no limits of their own."""
    if isinstance(value, Unresolved):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_numbers(item, _join(setting, str(key)))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _check_numbers(item, f"{setting}[{position}]")
    elif words := unmet_default(value):
        raise UserError(f"{setting} is {shorten(value)}: give {words}")


def _check_mapping(value: Mapping[str, Any], kinds: list[ast.expr], setting: str) -> None:
    items = [a[-1] for kind in kinds if (a := arguments_of(kind, MAPPINGS))]
    if not items:
        raise UserError(f"{setting} has no _target_: it must name what to build")
    complete = [
        key for key, item in value.items() if isinstance(item, Mapping) and "_target_" in item
    ]
    for key, item in value.items():
        if isinstance(item, Mapping) and "_target_" not in item:
            # A misspelt name of a part creates a new part without a _target_.
            raise unknown_key(_join(setting, str(key)), complete)
        _check_value(item, items[0], _join(setting, str(key)), strict=True)


def _join(head: str, key: str) -> str:
    return f"{head}.{key}" if head else key
