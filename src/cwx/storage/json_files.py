"""Reading JSON that may be damaged or hostile, in bounded time and memory."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cwx.storage.regular_files import read_regular_text

# Files of runs and stores have kilobytes; the metrics of a thousand classes have less than this.
MAX_BYTES = 8 * 2**20
# No file of this project nests deeper than ten levels.
MAX_DEPTH = 100
# A longer integer is read as a float, infinite beyond the range of floats: arithmetic, formats and
# files of this project have at most 64 bits.
_MAX_DIGITS = 40
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(file: Path, limit: int = MAX_BYTES) -> Any:
    """The value in a JSON file, as `parse_json`.

    Args:
        limit: the maximum size in bytes.

    Raises:
        OSError: the file is missing, no regular file, or larger than `limit`.
        ValueError: the file is not UTF-8, or as `parse_json`.
    """
    return parse_json(read_regular_text(file, limit))


def parse_json(text: str) -> Any:
    """The value of a JSON text; surrogates without a partner are replaced by U+FFFD.

    NaN and infinities are read, as Python's module does.

    Raises:
        ValueError: the text is not JSON, is nested more than `MAX_DEPTH` levels deep, or an object
            has a key twice.
    """
    try:
        value = json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep") from None
    return _checked(value, MAX_DEPTH)


def read_object(file: Path, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The object in a JSON file, as `read_json`.

    Raises:
        OSError: as `read_json`.
        ValueError: as `read_json`, or the value is not an object.
    """
    value = read_json(file, limit)
    if not isinstance(value, dict):
        raise ValueError(f"it holds {json_type(value)}, not an object")
    return value


def json_type(value: Any) -> str:
    """The JSON type of a value, in words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:100]!r} is there twice")
    return content


def _checked(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        return [_checked(item, depth - 1) for item in value]
    return {_checked(key, 0): _checked(item, depth - 1) for key, item in value.items()}
