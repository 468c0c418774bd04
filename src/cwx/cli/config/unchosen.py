"""Settings of parts that a study does not choose, such as those of another method."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cwx.cli.config.signatures import UnknownTargetError, signature
from cwx.cli.config.validate import RESERVED, unknown_key
from cwx.errors import UserError


def drop_unchosen(
    configuration: Mapping[str, Any], options: Mapping[str, Iterable[str]]
) -> dict[str, Any]:
    """Drop the settings of parts that were not chosen, as by ``method=[…]`` or ``adversary=none``.

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
                if name not in names or not _is_unchosen(parts, name)
            }
        elif isinstance(parts, Mapping) and _takes_no_settings(parts):
            result[group] = {key: part for key, part in parts.items() if key in RESERVED}
    return result


def drop_unchosen_of_job(
    overrides: Iterable[str],
    configurations: tuple[dict[str, Any], dict[str, Any]],
    options: Mapping[str, Iterable[str]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`drop_unchosen` of the unresolved and the resolved configuration of a job.

    Raises:
        UserError: the command line itself sets what a part such as ``adversary=none`` does not
            take.
    """
    unresolved, resolved = configurations
    for override in overrides:
        # ``~`` removes a setting, which an experiment may have.
        setting = override.lstrip("+").partition("=")[0]
        group, *keys = setting.split(".")[:2]
        part = resolved.get(group)
        is_own = group in options and isinstance(part, Mapping) and _takes_no_settings(part)
        if is_own and keys and keys[0] not in RESERVED:
            raise unknown_key(".".join((group, *keys)), ())
    return drop_unchosen(unresolved, options), drop_unchosen(resolved, options)


def refuse_unchosen(
    settings: Iterable[str],
    jobs: Sequence[Mapping[str, Any]],
    options: Mapping[str, Iterable[str]],
) -> None:
    """Refuse a setting of the command line whose part no job has, such as that of a method.

    Args:
        settings: names, such as ``evaluation.neurons.bins``.
        jobs: the resolved configuration of each job of a sweep, before `drop_unchosen`.
        options: the choices of each group.

    Raises:
        UserError: `drop_unchosen` would drop the setting from every job.
    """
    for setting in settings:
        group, *keys = setting.split(".")
        if group not in options or len(keys) < 2 or keys[0] not in options[group]:
            continue
        if all(_is_unchosen(job.get(group), keys[0]) for job in jobs):
            raise UserError(
                f"{setting} is set, but {group} has no {keys[0]} here: add "
                f"{keys[0]} to {group}=[…], or leave the setting out"
            )


def _is_unchosen(parts: Any, name: str) -> bool:
    """Whether a group of several parts has settings of this part, but not the part."""
    if not isinstance(parts, Mapping) or "_target_" in parts:
        return False
    part = parts.get(name)
    return isinstance(part, Mapping) and "_target_" not in part


def _takes_no_settings(part: Mapping[str, Any]) -> bool:
    target = str(part.get("_target_", ""))
    try:
        expected = signature(target) if target.startswith("cwx.") else None
    except UnknownTargetError:
        return False
    return expected is not None and not expected.parameters and not expected.open_ended
