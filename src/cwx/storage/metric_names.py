"""Names of the metrics of single classes, in ``metrics.json`` and in a paper's values.

A metric of a class has a level ``class`` before the name of the class, so that no class can have
the name of another metric, such as ``std``.
"""

from urllib.parse import unquote

_LEVEL = "class"


def class_metric(prefix: str, name: str) -> str:
    """The name of the metric `prefix` of the class called `name`.

    A slash in the name of a class is written as ``%2F``, and a percent sign as ``%25``: the names
    of two classes never give one metric.

    >>> class_metric("predictive_power/power/iscp/0.05", "dog")
    'predictive_power/power/iscp/0.05/class/dog'
    >>> class_metric("power", "std/top-1")
    'power/class/std%2Ftop-1'
    """
    return f"{prefix}/{_LEVEL}/{name.replace('%', '%25').replace('/', '%2F')}"


def metric_parts(name: str) -> tuple[str, ...]:
    """The parts of a metric's name; the level ``class`` and the class's name are one part.

    >>> metric_parts("predictive_power/whole/iscp/0.05/class/dog")
    ('predictive_power', 'whole', 'iscp', '0.05', 'class/dog')
    """
    parts: list[str] = []
    for part in name.split("/"):
        if parts and parts[-1] == _LEVEL:
            parts[-1] += f"/{part}"
        else:
            parts.append(part)
    return tuple(parts)


def part_label(part: str) -> str:
    """A part of `metric_parts` for readers: of a class, its name.

    >>> part_label("class/std%2Ftop-1"), part_label("std")
    ('std/top-1', 'std')
    """
    level, _, name = part.partition("/")
    return unquote(name) if level == _LEVEL and name else part
