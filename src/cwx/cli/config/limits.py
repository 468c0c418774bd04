"""Limits of settings, declared in annotations such as ``Annotated[int, ">= 1"]``.

A limit is a text: comparisons and words, separated by commas. Numbers have comparisons, as in
``"> 0, <= 1"``. Collections have ``"not empty"`` and ``"distinct"``. A text needs no import, so
that each part can declare its limits, and they are read without importing the part.

A number with a limit has an upper one: `LARGEST`, unless it declares another. Every other number
is finite, and every other integer has at most 64 bits.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

# The upper limit of numbers that declare none: so many steps of a millisecond take 12 days.
LARGEST = 10**9
# Indices and sizes of tensors, and seeds, are 64-bit integers.
LARGEST_INTEGER = 2**63 - 1
_LONGEST = 60
_MOST_DEVICES = 4096

_COMPARISONS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    ">=": (operator.ge, "{} or more"),
    "<=": (operator.le, "at most {}"),
    ">": (operator.gt, "above {}"),
    "<": (operator.lt, "below {}"),
}


def _are_devices(value: Any) -> bool:
    """Whether a value is a number of devices, -1 for all, or a list of their indices."""
    if isinstance(value, str):
        texts = value.split(",")
        return value == "auto" or (
            all(re.fullmatch(r"-1|\d{1,4}", text.strip()) for text in texts)
            and _are_devices(int(value) if len(texts) == 1 else [int(text) for text in texts])
        )
    if isinstance(value, int):
        return value == -1 or 1 <= value <= _MOST_DEVICES
    return len(set(value)) == len(value) > 0 and all(
        isinstance(index, int) and 0 <= index < _MOST_DEVICES for index in value
    )


_WORDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "not empty": (lambda items: len(items) > 0, "at least one value"),
    "distinct": (lambda items: all(items[i] not in items[:i] for i in range(len(items))),
                 "each value once"),
    "devices": (_are_devices, "a number of devices, -1 for all GPUs, or a list of indices"),
}  # fmt: skip

# Limits of parts of libraries, whose signatures declare none.
_OPTIMIZERS = {
    "lr": "> 0",
    "momentum": ">= 0, < 1",
    "dampening": ">= 0, <= 1",
    "weight_decay": ">= 0",
    "eps": "> 0",
    "alpha": ">= 0, <= 1",
    "lr_decay": ">= 0",
    "betas": ">= 0, < 1",
}
_SCHEDULERS = {
    "T_max": ">= 1",
    "T_0": ">= 1",
    "T_mult": ">= 1",
    "step_size": ">= 1",
    "eta_min": ">= 0",
    "min_lr": ">= 0",
    "gamma": "> 0",
    "factor": "> 0, < 1",
    "patience": ">= 0",
    "cooldown": ">= 0",
    "threshold": ">= 0",
    "eps": ">= 0",
    "total_iters": ">= 0",
    "milestones": "not empty",
    "last_epoch": ">= -1, <= -1",
}
_LIBRARIES: Mapping[str, Mapping[str, str]] = {
    "torch.optim.lr_scheduler.": _SCHEDULERS,
    "torch.optim.": _OPTIMIZERS,
    "torch.nn.": {
        "eps": "> 0",
        "momentum": ">= 0, <= 1",
        "num_features": ">= 1",
        "num_groups": ">= 1",
    },
    "torchvision.models.": {"dropout": ">= 0, <= 1", "num_classes": ">= 1"},
    "lightning.pytorch.Trainer": {
        "devices": "devices",
        "num_nodes": ">= 1",
        "num_sanity_val_steps": ">= 0",
        "log_every_n_steps": ">= 0",
        "gradient_clip_val": ">= 0",
    },
    "lightning.pytorch.loggers.": {"flush_logs_every_n_steps": ">= 1", "version": ">= 0"},
}


def library_limits(target: str, parameter: str) -> str:
    """The limits of a parameter of a library's class or function; empty without any."""
    for prefix, limits in _LIBRARIES.items():
        if target.startswith(prefix):
            return limits.get(parameter, "")
    return ""


def unmet_limits(value: Any, limits: str) -> str:
    """The limits in words if `value` does not meet them; otherwise empty.

    >>> unmet_limits(0, "> 0, <= 1")
    'above 0 and at most 1'
    >>> unmet_limits(1, "> 0, <= 1")
    ''
    >>> unmet_limits([2, 2], "not empty, distinct")
    'at least one value and each value once'

    Raises:
        ValueError: `limits` is not of the form that the module describes.
    """
    if unmet := unmet_default(value):
        return unmet
    texts = [text.strip() for text in limits.split(",")]
    if "<" not in limits and ">" in limits:
        texts.append(f"<= {LARGEST}")
    parts = [_parse(text) for text in texts]
    if all(holds(value) for holds, _ in parts):
        return ""
    return " and ".join(words for _, words in parts)


def shorten(value: object) -> str:
    """A value as text of at most 60 characters.

    >>> shorten("x" * 100)
    'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'
    """
    if isinstance(value, int) and value.bit_length() > _LONGEST * 3:
        return f"an integer of {value.bit_length()} bits"
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def unmet_default(value: Any) -> str:
    """The limits, in words, that a number without limits of its own does not meet."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else "a finite number"
    return "" if abs(value) <= LARGEST_INTEGER else "an integer of at most 64 bits"


def _parse(limit: str) -> tuple[Callable[[Any], bool], str]:
    if limit in _WORDS:
        return _WORDS[limit]
    match = re.fullmatch(r"(>=|<=|>|<) (\S+)", limit)
    if match is None:
        raise ValueError(f"{limit!r} is no limit: write a comparison such as '>= 1', or one of "
                         f"{', '.join(_WORDS)}")  # fmt: skip
    compare, words = _COMPARISONS[match[1]]
    bound = _number(match[2])
    return lambda value: compare(value, bound), words.format(match[2])


def _number(text: str) -> int | float:
    base, _, exponent = text.partition("**")
    if exponent:
        return math.prod([int(base)] * int(exponent))
    return float(text) if re.search(r"[.e]", text) else int(text)
