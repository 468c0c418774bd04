"""Durations and file sizes as text."""

import math


def duration(seconds: object) -> str:
    """A duration in its two largest units; empty unless `seconds` is a finite number.

    >>> [duration(s) for s in (None, 9.64, 59, 592.4, 7322, 200000)]
    ['', '9.6 s', '59 s', '9 min 52 s', '2 h 2 min', '2 d 7 h']
    """
    try:
        value = float(seconds) if isinstance(seconds, int | float) else math.nan
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        return ""
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    for unit_seconds, unit, subunit_seconds, subunit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit_seconds:
            rest = whole % unit_seconds // subunit_seconds
            return f"{whole // unit_seconds} {unit} {rest} {subunit}"
    return f"{whole} s"


def size(count: int) -> str:
    """A file size in decimal units.

    >>> size(999), size(14_156_000)
    ('999 B', '14.2 MB')
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
