"""Peak memory of one outer iteration for M = 10 to 600 inner steps.

    uv run benchmarks/memory_vs_unroll.py            on a CPU: ConvNet 3x128, 10 images
    uv run benchmarks/memory_vs_unroll.py --full     100 images, for a GPU

The plain unroll is measured at small M and extrapolated linearly (marked ~) where it would not fit.
Memory for stored θ is listed separately.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import harness
import torch
from distill_step import CLASSES, Problem, exact, plain

STEPS = (10, 60, 200, 600)
WAYS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "exact": {},
    "exact, every 25th state": {"keep_every": 25},
    "exact, 5 images at once": {"microbatch": 5},
}
# M of the plain unroll.
SMALL = (2, 4, 10)


def measure_variant(name: str, args: argparse.Namespace) -> dict[str, float]:
    way, _, steps = name.rpartition(" M=")
    torch.backends.cudnn.allow_tf32 = False
    problem = Problem(torch.float32, int(steps), per_class=10 if args.full else 1)
    settings = WAYS[way]
    gradient = plain(problem) if settings is None else exact(problem, **settings)
    values = harness.measure(gradient, repeats=0)
    stored = 0 if settings is None else -(-int(steps) // int(settings.get("keep_every", 1)))
    recomputed = 0 if settings is None else int(settings.get("keep_every", 1)) - 1
    states = (stored + recomputed) * problem.start.numel() * problem.start.element_size() / 2**20
    return {"MiB": values["MiB"], "states": states}


Reports = Mapping[str, dict[str, float] | str]


def _extrapolate(reports: Reports) -> list[harness.Cell]:
    """Memory of the plain unroll at each M: a line through the smallest and largest measured M."""
    smallest, largest = (reports.get(f"plain M={steps}") for steps in (SMALL[0], SMALL[-1]))
    if not isinstance(smallest, dict) or not isinstance(largest, dict):
        return [None for _ in STEPS]
    slope = (largest["MiB"] - smallest["MiB"]) / (SMALL[-1] - SMALL[0])
    return [
        f"{'~' * (steps > SMALL[-1])}{largest['MiB'] + slope * (steps - SMALL[-1]):.0f}"
        for steps in STEPS
    ]


def _cell(values: dict[str, float] | str | None) -> harness.Cell:
    if not isinstance(values, dict):
        return values
    return f"{values['MiB'] - values['states']:.0f} + {values['states']:.0f}"


def _memory_growth(values: Sequence[dict[str, float] | str | None]) -> harness.Cell:
    """Memory for the computation at M = 600 divided by that at M = 60, without stored θ."""
    few, many = values[1], values[3]
    if not isinstance(few, dict) or not isinstance(many, dict):
        return None
    return (many["MiB"] - many["states"]) / (few["MiB"] - few["states"])


def main() -> None:
    args = harness.arguments(__doc__.splitlines()[0]).parse_args()
    if args.variant:
        harness.report(measure_variant(args.variant, args))
        return
    args.rounds = 1
    names = [f"plain M={steps}" for steps in SMALL]
    names += [f"{way} M={steps}" for way in WAYS if way != "plain" for steps in STEPS]
    reports = harness.in_processes(__file__, names, args)
    rows: list[list[harness.Cell]] = [["plain", *_extrapolate(reports), None]]
    for way in WAYS:
        if way != "plain":
            values = [reports.get(f"{way} M={steps}") for steps in STEPS]
            rows.append([way, *map(_cell, values), _memory_growth(values)])
    images = CLASSES * (10 if args.full else 1)
    print(f"ConvNet 3x128, {images} images of 3x32x32; peak MiB of computing + of stored θ")
    print(harness.machine() + "\n")
    harness.table(["", *(f"M = {steps}" for steps in STEPS), "600 against 60"], rows)


if __name__ == "__main__":
    main()
