"""Means over classes of the power of patterns on other networks."""

import math

import pytest

from cwx.evaluations.patterns.transfer import ratio, transfer_metrics


def pairs(*values):
    """Rows of transfer to one network: of each class, the power there and on the explained one."""
    rows = [
        {
            "network": "clean",
            "source": "iscp",
            "size": "0.05",
            "class": str(label),
            "explained": explained,
            "power": power,
        }
        for label, (power, explained) in enumerate(values)
    ]
    return [{**row, "rate": ratio(row, "power", "explained")} for row in rows]


# Powers of the classes, the transfer over all classes, and those left out.
TRANSFERS = [
    ([(math.inf, 0.8), (0.4, 0.4)], 1.0, 1),
    ([(0.4, 0.4), (0.8, math.inf)], 1.0, 1),
    ([(math.nan, 0.8), (0.1, 0.4), (0.3, 0.4)], 0.5, 1),
    ([(0.2, 0.4), (0.4, 0.4)], 0.75, None),
    ([(0.2, 0.0), (0.4, 0.4)], 1.5, None),
    ([(math.inf, 0.4), (math.nan, 0.4)], None, 2),
    ([(0.2, 0.0)], None, None),
]


@pytest.mark.parametrize(("powers", "ratio", "left_out"), TRANSFERS)
def test_transfer_is_of_the_classes_with_a_power_on_both_networks(powers, ratio, left_out):
    name = "predictive_power/transfer/iscp/0.05/clean"
    metrics = transfer_metrics(pairs(*powers), None)
    assert metrics.pop(name, None) == (ratio if ratio is None else pytest.approx(ratio))
    assert metrics.pop(f"{name}/left_out", None) == left_out
    expected = {
        f"{name}/class/{label}": power / explained
        for label, (power, explained) in enumerate(powers)
        if math.isfinite(power) and math.isfinite(explained) and explained
    }
    assert metrics == pytest.approx(expected)


@pytest.mark.parametrize("target", ["0", "1", "2", None, "absent"])
def test_the_target_of_a_backdoor_is_apart_from_other_classes(target):
    name = "predictive_power/transfer/iscp/0.05/clean"
    powers = [(0.1, 0.5), (0.4, 0.4), (math.inf, 0.8)]
    metrics = transfer_metrics(pairs(*powers), target)
    assert metrics[name] == pytest.approx(0.5 / 0.9)
    parts = {part: metrics.get(f"{name}/{part}") for part in ("target", "others")}
    expected = {"0": (0.2, 1.0), "1": (1.0, 0.2), "2": (None, 0.5 / 0.9)}.get(target, (None, None))
    assert [*parts.values()] == [v if v is None else pytest.approx(v) for v in expected]
