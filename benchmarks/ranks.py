"""The time of a study, with its evaluations, on two processes beside one.

    uv run benchmarks/ranks.py --folder /tmp/streamed

Runs the study of neurons at the small scale on generated images that are decoded when they are
needed, once on one process and once on two, each with one thread and without workers. Prints the
seconds of each run, and how the metrics differ: networks with batch norm are trained on two
processes up to rounding. Further settings of the study may follow.
"""

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

from generated_images import generate
from streamed_study import ROOT, command


def run(root: Path, folder: Path, settings: list[str]) -> tuple[float, dict[str, float]]:
    """The seconds of a study in its own store, and its metrics."""
    shutil.rmtree(folder, ignore_errors=True)
    arguments = command(root, store=folder / "store", run=folder / "run", workers=0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*arguments, *settings], check=True, cwd=ROOT, env=environment)
    status = json.loads((folder / "run/status.json").read_text())
    metrics: dict[str, float] = json.loads((folder / "run/metrics.json").read_text())
    return status["seconds"], metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, required=True)
    options, settings = parser.parse_known_args()
    root = generate(options.folder, options.images)
    settings = [f"data.manifests={options.folder / 'manifests'}", *settings]
    alone, expected = run(root, options.folder / "one", settings)
    ranks = ["trainer=ddp_cpu", "trainer.devices=2"]
    together, metrics = run(root, options.folder / "two", [*settings, *ranks])
    print(f"one process {alone:.0f} s, two {together:.0f} s: {alone / together:.2f} times as fast")
    gaps = {name: abs(metrics[name] - value) for name, value in expected.items()}
    equal, worst = sum(not gap for gap in gaps.values()), max(gaps, key=lambda name: gaps[name])
    print(
        f"{equal} of {len(gaps)} metrics are equal; the largest gap is {gaps[worst]:.2g} ({worst})"
    )


if __name__ == "__main__":
    main()
