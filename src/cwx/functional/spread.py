"""Standard deviations of a few numbers, which may not be finite.

Those of the module `statistics` raise an AttributeError for NaN and infinity.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence


def sample_std(values: Iterable[float]) -> float:
    """The sample standard deviation (ddof 1); NaN for fewer than two values.

    NaN if a value is not finite.
    """
    return _finite_std([*values], statistics.stdev, least=2)


def population_std(values: Iterable[float]) -> float:
    """The standard deviation of all values (ddof 0); NaN without values.

    NaN if a value is not finite.
    """
    return _finite_std([*values], statistics.pstdev, least=1)


def _finite_std(
    values: Sequence[float], std: Callable[[Sequence[float]], float], *, least: int
) -> float:
    if len(values) < least or not all(map(math.isfinite, values)):
        return math.nan
    return std(values)
