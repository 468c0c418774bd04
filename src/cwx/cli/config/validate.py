"""Checks a configuration against the signatures of its `_target_`s, without importing them."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cwx.cli.config.signatures import Parameter, Signature, UnknownTargetError, signature
from cwx.errors import UserError, did_you_mean

RESERVED = frozenset({"_target_", "_partial_", "_convert_", "_recursive_", "_args_"})


def check(configuration: Mapping[str, Any], path: str = "") -> None:
    """Check each object of a resolved configuration against the signature of its `_target_`.

    Raises:
        UserError: an unknown key, a value of the wrong type, a missing value, or a `_target_`
            that does not exist.
    """
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
        parameter = _parameter(expected, str(key), setting)
        if parameter and parameter.annotation:
            _check_value(value, parameter.annotation, setting, strict=ours)
        elif isinstance(value, Mapping) and "_target_" in value:
            check(value, setting)
    if expected and not configuration.get("_partial_"):
        for name, parameter in expected.parameters.items():
            if not parameter.optional and name not in configuration and ours:
                raise UserError(f"{_join(path, name)} is missing: give it a value")


def drop_unchosen(
    configuration: Mapping[str, Any], options: Mapping[str, Iterable[str]]
) -> dict[str, Any]:
    """Drop the settings of parts that were not chosen, as by ``method=[…]``.

    An experiment sets them whether or not the command line keeps the part.

    Args:
        options: the choices of each group; a part of any other name stays, and `check` refuses it.
    """
    result = dict(configuration)
    for group, names in options.items():
        parts = result.get(group)
        if isinstance(parts, Mapping) and "_target_" not in parts:
            result[group] = {
                name: part
                for name, part in parts.items()
                if name not in names or not isinstance(part, Mapping) or "_target_" in part
            }
    return result


def experiment_name(choices: Mapping[str, Any]) -> str:
    """The name of a run: its experiment, and its scale unless that is "paper"."""
    scale = choices.get("scale", "paper")
    return f"{choices.get('experiment')}{'' if scale == 'paper' else f' {scale}'}"


def first_difference(before: Any, now: Any, path: str = "") -> str:
    """The first setting that differs, as "<setting> was … and is …"; empty if all are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            setting = _join(path, str(key))
            if text := first_difference(before.get(key), now.get(key), setting):
                return text
        return ""
    return "" if before == now else f"{path} was {before!r} and is {now!r}"


def _parameter(expected: Signature | None, key: str, setting: str) -> Parameter | None:
    if expected is None:
        return None
    if key in expected.parameters:
        return expected.parameters[key]
    if expected.open_ended:
        return None
    raise _unknown_key(setting, expected.parameters)


def _unknown_key(setting: str, valid: Iterable[str]) -> UserError:
    """The error for an unknown key, with the nearest valid one."""
    head, _, key = setting.rpartition(".")
    names = sorted(valid)
    choices = ", ".join(names) or f"one of another {head}, for this one takes no settings"
    remedy = did_you_mean(key, names, f"it may be {choices}", prefix=_join(head, ""))
    return UserError(f"unknown key {setting}: {remedy}")


def _check_value(value: Any, annotation: ast.expr, setting: str, *, strict: bool) -> None:
    """Check a value, and the objects in it if it is an object or a collection."""
    if isinstance(value, Mapping) and "_target_" in value:
        check(value, setting)
        return
    kinds = _alternatives(annotation)
    if isinstance(value, Mapping) and strict:
        _check_mapping(value, kinds, setting)
        return
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = [item for kind in kinds for item in _arguments_of(kind, SEQUENCES)]
        for position, item in enumerate(value):
            if items:
                _check_value(item, items[0], f"{setting}[{position}]", strict=strict)
    if not any(_fits(value, kind, strict=strict) for kind in kinds):
        wanted = ast.unparse(annotation) if not _is_object(kinds) else "an object with a _target_"
        if any(_name(kind) in SEQUENCES for kind in kinds) and value is not None:
            wanted += f", as in {setting}=[{value}]"
        raise UserError(f"{setting} is {value!r}: it takes {wanted}")


def _check_mapping(value: Mapping[str, Any], kinds: list[ast.expr], setting: str) -> None:
    items = [a[-1] for kind in kinds if (a := _arguments_of(kind, MAPPINGS))]
    if not items:
        raise UserError(f"{setting} has no _target_: it must name what to build")
    complete = [
        key for key, item in value.items() if isinstance(item, Mapping) and "_target_" in item
    ]
    for key, item in value.items():
        if isinstance(item, Mapping) and "_target_" not in item:
            # A misspelt name of a part creates a new part without a _target_.
            raise _unknown_key(_join(setting, str(key)), complete)
        _check_value(item, items[0], _join(setting, str(key)), strict=True)


SEQUENCES = frozenset({"list", "List", "Sequence", "Iterable", "tuple", "Tuple"})
MAPPINGS = frozenset({"dict", "Dict", "Mapping"})
SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "Path": (str,),
    "None": (type(None),),
    # A class, or what YAML reads in place of its name (cwx.functional.class_names).
    "ClassName": (str, int, float, bool, type(None)),
}

# Types of libraries that no plain value has.
OBJECTS = frozenset({"Tensor"})


def _alternatives(annotation: ast.expr) -> list[ast.expr]:
    """The members of a union, however it is spelt."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _alternatives(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp):
        return _alternatives(annotation.left) + _alternatives(annotation.right)
    if members := _arguments_of(annotation, frozenset({"Union"})):
        return [kind for member in members for kind in _alternatives(member)]
    if members := _arguments_of(annotation, frozenset({"Optional"})):
        return [*_alternatives(members[0]), ast.Constant(None)]
    return [annotation]


def _name(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Subscript):
        return _name(annotation.value)
    if isinstance(annotation, ast.Attribute):
        return annotation.attr
    if isinstance(annotation, ast.Constant):
        return str(annotation.value)
    return annotation.id if isinstance(annotation, ast.Name) else ""


def _arguments_of(annotation: ast.expr, names: frozenset[str]) -> list[ast.expr]:
    if not isinstance(annotation, ast.Subscript) or _name(annotation) not in names:
        return []
    inner = annotation.slice
    return list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]


def _is_object(kinds: list[ast.expr]) -> bool:
    plain = {*SCALARS, *SEQUENCES, *MAPPINGS, "Any", "Literal"}
    return not any(_name(kind) in plain for kind in kinds)


def _fits(value: Any, kind: ast.expr, *, strict: bool) -> bool:
    name = _name(kind)
    if name in SCALARS:
        fits = isinstance(value, SCALARS[name])
        return fits and (name in ("bool", "ClassName") or not isinstance(value, bool))
    if name in OBJECTS:
        return False
    if name == "Literal":
        return any(
            isinstance(a, ast.Constant) and a.value == value
            for a in _arguments_of(kind, frozenset({"Literal"}))
        )
    if name in SEQUENCES:
        return isinstance(value, Sequence) and not isinstance(value, str)
    if name in MAPPINGS:
        return isinstance(value, Mapping)
    # Any other name is a class, or a library's type alias that the source does not resolve.
    return name == "Any" or not strict


def _join(head: str, key: str) -> str:
    return f"{head}.{key}" if head else key
