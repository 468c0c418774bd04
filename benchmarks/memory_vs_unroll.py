"""Peak memory of one outer iteration for M = 10 to 600 inner steps.

    uv run benchmarks/memory_vs_unroll.py            on a CPU: ConvNet 3x128, 10 images
    uv run benchmarks/memory_vs_unroll.py --full     100 images, for a GPU

The plain unroll is measured at small M and extrapolated in a straight line (marked ~) where it
would not fit; memory for stored θ is told apart.
"""

import argparse
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


def main() -> None:
    given = harness.arguments(__doc__.splitlines()[0]).parse_args()
    if given.variant:
        harness.report(measured(given.variant, given))
        return
    given.rounds = 1
    names = [f"plain M={steps}" for steps in SMALL]
    names += [f"{way} M={steps}" for way in WAYS if way != "plain" for steps in STEPS]
    found = harness.in_processes(__file__, names, given)
    few, many = (found[f"plain M={steps}"] for steps in (SMALL[0], SMALL[-1]))
    rows: list[list[harness.Cell]] = []
    if isinstance(few, dict) and isinstance(many, dict):
        slope = (many["MiB"] - few["MiB"]) / (SMALL[-1] - SMALL[0])
        at = [many["MiB"] + slope * (steps - SMALL[-1]) for steps in STEPS]
        rows.append(["plain", f"{at[0]:.0f}", *(f"~{value:.0f}" for value in at[1:]), None])
    for way in WAYS:
        if way == "plain":
            continue
        values = [found[f"{way} M={steps}"] for steps in STEPS]
        cells = [
            v if isinstance(v, str) else f"{v['MiB'] - v['states']:.0f} + {v['states']:.0f}"
            for v in values
        ]
        flat = None
        if isinstance(values[1], dict) and isinstance(values[3], dict):
            peaks = [v["MiB"] - v["states"] for v in (values[1], values[3])]
            flat = peaks[1] / peaks[0]
        rows.append([way, *cells, flat])
    images = CLASSES * (10 if given.full else 1)
    print(f"ConvNet 3x128, {images} images of 3x32x32; peak MiB of computing + of stored θ")
    print(harness.machine() + "\n")
    harness.table(["", *(f"M = {steps}" for steps in STEPS), "600 against 60"], rows)


if __name__ == "__main__":
    main()
