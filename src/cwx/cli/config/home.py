"""The user's home directory, in words of the command line and in the values of settings."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def expand_home(argv: Sequence[str]) -> list[str]:
    """The words, with ``~`` at the start of a value replaced by the user's home directory.

    The shell leaves ``store=~/experts`` as it is, since the word does not begin with ``~``.
    """
    home = str(Path.home())
    return [re.sub(r"""(?<=[=\[,:"'])~(?=$|[/,\]"'])""", lambda _: home, word) for word in argv]


def expand_settings(value: Any) -> Any:
    """The same values; a text that is ``~`` or begins with ``~/`` has the home directory instead.

    YAML files leave ``root: ~/images`` as it is. A path is any such text: settings of the user's
    own parts are not known here.

    Args:
        value: plain values, nested.

    >>> expand_settings({"a": ["x~", "~x/y", 1]})
    {'a': ['x~', '~x/y', 1]}
    """
    if isinstance(value, dict):
        return {key: expand_settings(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_settings(item) for item in value]
    if isinstance(value, str) and (value == "~" or value.startswith("~/")):
        return f"{Path.home()}{value[1:]}"
    return value
