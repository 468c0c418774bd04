import math
import re
import statistics
from pathlib import Path

import pytest

import cwx
from cwx.functional.spread import population_std, sample_std

SOURCES = sorted(Path(cwx.__file__).parent.rglob("*.py"))


def test_finite_values_have_the_deviations_of_the_standard_library():
    values = [0.5, 2.0, 4.25]
    assert sample_std(iter(values)) == statistics.stdev(values)
    assert population_std(iter(values)) == statistics.pstdev(values)
    assert population_std([3.0]) == 0


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, 1.0], [-math.inf, math.inf], []])
def test_values_without_a_deviation_have_nan(values):
    assert math.isnan(sample_std(values))
    assert math.isnan(population_std(values))
    assert math.isnan(sample_std([1.0]))


def test_no_module_calls_those_of_the_standard_library():
    """They end a study at a network that has diverged, and its outcomes are lost."""
    calls = re.compile(r"\bp?stdev\b")
    users = [
        path.name
        for path in SOURCES
        if path.name != "spread.py" and calls.search(path.read_text(encoding="utf-8"))
    ]
    assert not users
