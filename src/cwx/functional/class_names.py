"""Classes by name or index: the one place where settings become class indices.

YAML and Hydra read some names of classes, such as ``2``, ``1e3``, ``true`` and ``null``, as
numbers, booleans or null.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeGuard
from unicodedata import normalize

from cwx.errors import closest

# A class in a setting: its name, or what YAML reads in place of the name, or its index.
ClassName = str | int | float | bool | None
# Names that messages list.
_LISTED = 10
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS = {"", "~", "null"}
_INTEGER = re.compile(r"([-+]?)(0[xX][0-9a-fA-F_]+|0[bB][01_]+|[0-9][0-9_]*)")
_SEXAGESIMAL = re.compile(r"([-+]?)([0-9][0-9_]*(?::[0-5]?[0-9])+)(\.[0-9_]*)?")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"([-+]?)\.?(inf|nan)", re.IGNORECASE)


def class_index(value: ClassName, classes: Sequence[str], setting: str) -> int:
    """The index of a class, from its name or its index.

    The class of that very name wins, also if YAML has read the name as a number, a boolean or
    null. An integer is an index only if no class is named by a number.

    Args:
        value: the class.
        classes: the names of all classes, by index.
        setting: the name of the setting, for messages.

    >>> class_index("dog", ["cat", "dog"], "target"), class_index(1, ["cat", "dog"], "target")
    (1, 1)
    >>> class_index(2, ["1", "2", "3"], "target"), class_index(True, ["false", "true"], "target")
    (1, 1)

    Raises:
        ValueError: there is no such class, or the value may mean another one.
    """
    if isinstance(value, str):
        return _index_of_text(value, classes, setting)
    if value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"{setting} is {value!r}: give the name or the index of a class")
    alike = [name for name in classes if any(_equal(value, r) for r in readings(name))]
    if len(alike) > 1 or (alike and not _is_spelling(alike[0], value)):
        raise ValueError(
            f"{setting} is {value!r}, which is how YAML reads {_listed(alike)}: write the name in "
            f"quotes, as in {_quoted(setting, alike[0])}"
        )
    if alike:
        return list(classes).index(alike[0])
    if _is_integer(value):
        return _checked_index(value, classes, setting)
    raise ValueError(
        f"{setting} is {value!r}, and no class has such a name: there are {_listed(classes)}; "
        f"write a name in quotes, as in {_quoted(setting, classes[0])}"
    )


def class_indices(values: Iterable[ClassName], classes: Sequence[str], setting: str) -> list[int]:
    """The indices of several classes, in order; see `class_index`.

    Raises:
        ValueError: there are none, one is invalid, or two are the same class.
    """
    indices = [class_index(value, classes, setting) for value in values]
    if not indices:
        raise ValueError(f"{setting} is empty: name one class or more")
    if twice := [index for index, count in Counter(indices).items() if count > 1]:
        raise ValueError(
            f"{setting} has class {describe_class(twice[0], classes)} more than once: name each "
            "class once"
        )
    return indices


def named_or_all(
    values: Iterable[ClassName] | None, classes: Sequence[str], setting: str
) -> list[int]:
    """The indices of the classes of a setting that is null for all classes.

    Raises:
        ValueError: as `class_indices`.
    """
    if values is None:
        return list(range(len(classes)))
    return class_indices(values, classes, setting)


def describe_class(index: int, classes: Sequence[str]) -> str:
    """A class for messages and pages.

    >>> describe_class(1, ["cat", "dog"])
    "'dog' (index 1)"
    """
    return f"{classes[index]!r} (index {index})"


def names_by_number(classes: Iterable[str]) -> bool:
    """Whether YAML reads the name of some class as a finite number."""
    return any(
        isinstance(reading, int | float)
        and not isinstance(reading, bool)
        and math.isfinite(reading)
        for name in classes
        for reading in readings(name)
    )


@functools.lru_cache(maxsize=10_000)
def readings(name: str) -> tuple[ClassName, ...]:
    """What YAML 1.1 or Hydra may read in place of an unquoted name; empty if always the name.

    >>> readings("dog"), readings("7"), readings("010"), readings("1e3"), readings("yes")
    ((), (7,), (10, 8), (1000.0,), (True,))
    """
    text = name.strip()
    if text.lower() in _NULLS:
        return (None,)
    if text.lower() in _BOOLEANS:
        return (_BOOLEANS[text.lower()],)
    if match := _INTEGER.fullmatch(text):
        return _integers(match[1], match[2].replace("_", "").lower())
    if match := _SEXAGESIMAL.fullmatch(text):
        return (_sexagesimal(match[1], match[2].replace("_", ""), match[3]),)
    if match := _SPECIAL_FLOAT.fullmatch(text):
        return (float(match[1] + match[2]),)
    return (float(text.replace("_", "")),) if _FLOAT.fullmatch(text) else ()


def _integers(sign: str, digits: str) -> tuple[ClassName, ...]:
    factor = -1 if sign == "-" else 1
    if digits.startswith(("0x", "0b")):
        return (factor * int(digits, 0),) if len(digits) > 2 else ()
    values = [int(digits)]
    if digits.startswith("0") and re.fullmatch("[0-7]+", digits):
        values.append(int(digits, 8))
    return tuple(dict.fromkeys(factor * value for value in values))


def _sexagesimal(sign: str, digits: str, fraction: str | None) -> int | float:
    value = 0
    for part in digits.split(":"):
        value = 60 * value + int(part)
    signed: int | float = value if fraction is None else value + float(f"0{fraction}0")
    return -signed if sign == "-" else signed


def _index_of_text(value: str, classes: Sequence[str], setting: str) -> int:
    if value in classes:
        return list(classes).index(value)
    # File systems store an accented letter in one of two forms.
    alike = [index for index, name in enumerate(classes) if composed(name) == composed(value)]
    if len(alike) == 1:
        return alike[0]
    near = ", ".join(map(repr, closest(value, classes)))
    raise ValueError(
        f"{setting} is {value!r}, and there is no such class among the {len(classes)}: the "
        f"nearest are {near}; give one of the names{_or_index(classes)}"
    )


def _checked_index(value: int, classes: Sequence[str], setting: str) -> int:
    if names_by_number(classes):
        raise ValueError(
            f"{setting} is {value}, and no class is called {str(value)!r}: where names of classes "
            f"are numbers, a number is a name; give one of {_listed(classes)}"
        )
    if not 0 <= value < len(classes):
        raise ValueError(
            f"{setting} is {value}, and there is no such class among the {len(classes)}: give a "
            f"name{_or_index(classes)}"
        )
    return value


def _or_index(classes: Sequence[str]) -> str:
    return "" if names_by_number(classes) else f" or an index in 0-{len(classes) - 1}"


def composed(text: str) -> str:
    """A text in Unicode's composed form (NFC), in which names of classes are compared."""
    return normalize("NFC", text)


def _equal(value: ClassName, reading: ClassName) -> bool:
    if type(value) is not type(reading):
        return False
    both_nan = value != value and reading != reading
    return both_nan or value == reading


def _is_spelling(name: str, value: ClassName) -> bool:
    """Whether `name` is the usual spelling of a value; floats have none."""
    return isinstance(value, float) or name.lower() == (
        "null" if value is None else str(value).lower()
    )


def _is_integer(value: ClassName) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(repr, names[:_LISTED])) + more


def _quoted(setting: str, name: str) -> str:
    return f"\"{setting}='{name}'\""
