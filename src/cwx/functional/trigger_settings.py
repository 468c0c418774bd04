"""The check of one setting of a trigger."""


def require(name: str, value: object, valid: bool, remedy: str) -> None:
    """Refuse a value of a setting.

    Raises:
        ValueError: `valid` is False. The message has the name, the value and the remedy.
    """
    if not valid:
        raise ValueError(f"{name} is {value!r}: give {remedy}")
