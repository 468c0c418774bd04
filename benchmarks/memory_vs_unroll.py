"""Peak memory of one outer iteration for M = 10 to 600 inner steps.

    uv run benchmarks/memory_vs_unroll.py            on a CPU: ConvNet 3x128, 10 images
    uv run benchmarks/memory_vs_unroll.py --full     100 images, for a GPU

The plain unroll is measured at small M and extrapolated in a straight line (marked ~) where it
would not fit; memory for stored θ is told apart.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import harness
import torch
from distill_step import CLASSES, Problem

from cwx.functional.unroll import Exact, Plain

STEPS = (10, 60, 200, 600)
WAYS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "exact": {},
    "exact, every 25th state": {"keep_every": 25},
    "exact, 5 images at once": {"microbatch": 5},
}
# Plain at these only.
SMALL = (2, 4, 10)


def measured(name: str, given: argparse.Namespace) -> dict[str, float]:
    way, _, steps = name.rpartition(" M=")
    torch.backends.cudnn.allow_tf32 = False
    problem = Problem(torch.float32, int(steps), per_class=10 if given.full else 1)
    settings = WAYS[way]
    if settings is None:
        unroll: Any = Plain(problem.loss)
    else:
        chosen = {"microbatch": None, "keep_every": 1, "offload": False, "compile": None}
        unroll = Exact(problem.loss, **{**chosen, **settings})
    values = harness.measure(lambda: problem.gradient(unroll), repeats=0)
    kept = 0 if settings is None else -(-int(steps) // int(settings.get("keep_every", 1)))
    stretch = 0 if settings is None else int(settings.get("keep_every", 1)) - 1
    states = (kept + stretch) * problem.start.numel() * problem.start.element_size() / 2**20
    return {"MiB": values["MiB"], "states": states}


Reports = Mapping[str, dict[str, float] | str]


def _extrapolated(found: Reports) -> list[harness.Cell]:
    """The plain unroll at each M, in a straight line through the smallest and largest measured."""
    few, many = (found.get(f"plain M={steps}") for steps in (SMALL[0], SMALL[-1]))
    if not isinstance(few, dict) or not isinstance(many, dict):
        return [None for _ in STEPS]
    slope = (many["MiB"] - few["MiB"]) / (SMALL[-1] - SMALL[0])
    return [
        f"{'~' * (steps > SMALL[-1])}{many['MiB'] + slope * (steps - SMALL[-1]):.0f}"
        for steps in STEPS
    ]


def _cell(values: dict[str, float] | str | None) -> harness.Cell:
    if not isinstance(values, dict):
        return values
    return f"{values['MiB'] - values['states']:.0f} + {values['states']:.0f}"


def _flatness(values: Sequence[dict[str, float] | str | None]) -> harness.Cell:
    """How much more computing takes at M = 600 than at M = 60, stored θ aside."""
    few, many = values[1], values[3]
    if not isinstance(few, dict) or not isinstance(many, dict):
        return None
    return (many["MiB"] - many["states"]) / (few["MiB"] - few["states"])


def main() -> None:
    given = harness.arguments(__doc__.splitlines()[0]).parse_args()
    if given.variant:
        harness.report(measured(given.variant, given))
        return
    given.rounds = 1
    names = [f"plain M={steps}" for steps in SMALL]
    names += [f"{way} M={steps}" for way in WAYS if way != "plain" for steps in STEPS]
    found = harness.in_processes(__file__, names, given)
    rows: list[list[harness.Cell]] = [["plain", *_extrapolated(found), None]]
    for way in WAYS:
        if way != "plain":
            values = [found.get(f"{way} M={steps}") for steps in STEPS]
            rows.append([way, *map(_cell, values), _flatness(values)])
    images = CLASSES * (10 if given.full else 1)
    print(f"ConvNet 3x128, {images} images of 3x32x32; peak MiB of computing + of stored θ")
    print(harness.machine() + "\n")
    harness.table(["", *(f"M = {steps}" for steps in STEPS), "600 against 60"], rows)


if __name__ == "__main__":
    main()
