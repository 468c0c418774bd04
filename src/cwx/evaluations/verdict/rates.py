"""How often the verdict was right on networks of known history."""

import csv
from importlib.resources import files

from cwx.evaluations.outcome import Row


def measured_rates() -> list[Row]:
    """The rates that were measured, with the statistics that they name, a row per kind of networks.

    ``measured_on`` names images and networks; ``networks`` are clean, or backdoored by an attack.
    ``flagged`` counts those with p ≤ 0.05, with the exact 95 % interval of the rate;
    ``right_class`` counts those of them whose most suspicious class is the target;
    ``flagged_by_other_banks`` is the mean rate over random divisions of the clean networks into a
    bank and test networks, with the interval of 95 % of them.

    The file is written by ``benchmarks/detection_report.py``.
    """
    text = (files("cwx.evaluations.verdict") / "measured_rates.csv").read_text(encoding="utf-8")
    return [dict(row) for row in csv.DictReader(text.splitlines())]
