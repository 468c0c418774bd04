"""Keys that Hydra reads as null, such as the class of that name."""

from typing import Any

from cwx.errors import UserError


def refuse_null_keys(value: Any, setting: str, line: str) -> None:
    """Refuse a mapping on the command line with the key null, which no configuration can hold.

    Args:
        value: of the setting, as Hydra has read it.
        line: the whole override.

    Raises:
        UserError: names the ways to write a class that is called null.
    """
    if isinstance(value, list):
        for item in value:
            refuse_null_keys(item, setting, line)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key is None:
            raise UserError(
                f"{line} has the key null, which is no name: for a class called null write "
                f"{setting}.null={'…' if isinstance(item, dict | list) else item}, or 'null' in "
                "quotes in a YAML file"
            )
        refuse_null_keys(item, f"{setting}.{key}", line)
