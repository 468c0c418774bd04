"""Times and sizes as people read them."""

import math


def duration(seconds: object) -> str:
    """A time in its two largest units; empty for what is no finite number.

    >>> [duration(s) for s in (None, 9.64, 59, 592.4, 7322, 200000)]
    ['', '9.6 s', '59 s', '9 min 52 s', '2 h 2 min', '2 d 7 h']
    """
    try:
        known = float(seconds) if isinstance(seconds, int | float) else math.nan
    except OverflowError:
        known = math.inf
    if not math.isfinite(known):
        return ""
    if known < 10:
        return f"{known:.2g} s"
    whole = round(known)
    for size, name, part, below in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part} {below}"
    return f"{whole} s"


def size(count: int) -> str:
    """A number of bytes.

    >>> size(999), size(14_156_000)
    ('999 B', '14.2 MB')
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
