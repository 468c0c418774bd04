"""Settings of `method.iscp` that the searches that are compared with it must have as well."""

from collections.abc import Mapping
from typing import Any

from cwx.cli.config.override_text import override
from cwx.errors import UserError

# Parts whose arguments depend on what they build: the configuration of the other searches follows
# `_target_` and `lr` by interpolation, and cannot know others.
_PARTS = ("optimizer", "canvas")


def check_followed(methods: Mapping[str, Any]) -> None:
    """Refuse a search like that of `method.iscp` that lacks an argument which the user has added.

    Raises:
        UserError: names the argument and what to add.
    """
    first = methods.get("iscp")
    if first is None:
        return
    for name, other in methods.items():
        if other.get("_target_") != first.get("_target_"):
            continue
        for part in _PARTS:
            own, its = first.get(part), other.get(part)
            if not isinstance(own, Mapping) or not isinstance(its, Mapping):
                continue
            missing = sorted(own.keys() - its.keys())
            if missing and own.get("_target_") == its.get("_target_"):
                added = override(f"method.{name}.{part}.{missing[0]}", own[missing[0]])
                raise UserError(
                    f"method.iscp.{part} has {missing[0]}, and method.{name}, which is compared "
                    f"with it, has not: add +{added}, or leave {name} out of method=[…]"
                )
