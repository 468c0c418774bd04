"""Overrides for Hydra from plain values, quoted, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from cwx.errors import UserError, printable


def override(key: str, value: Any) -> str:
    """The override that sets `key` to a plain value: a text, a number, ``None`` or a list.

    >>> override("data.source.size", 32), override("data.source.root", "it's")
    ('data.source.size=32', "data.source.root='it\\\\'s'")

    Raises:
        UserError: a text holds an interpolation, which Hydra would resolve.
    """
    return f"{key}={_text(key, value)}"


def parse_override(line: str) -> Override:
    """An override as Hydra reads it; its ``value()`` is without quotes.

    Raises:
        UserError: it cannot be read, such as for an open bracket.
    """
    try:
        return OverridesParser.create().parse_override(line)
    except HydraException as error:
        raise UserError(
            f"{line} cannot be read ({str(error).strip().splitlines()[0]}): close all brackets and "
            "quotes, and quote a value with special characters, as in \"key='a=b'\""
        ) from error


def _text(key: str, value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        if "${" in value:
            raise UserError(f"{printable(value)} holds '${{', which no setting may: rename it")
        return str(QuotedString(value, Quote.single).with_quotes())
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}: {_text(key, v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_text(key, item) for item in value) + "]"
    raise TypeError(f"{key}: {type(value).__name__}")
