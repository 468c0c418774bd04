"""The memory of a whole study of many images that are decoded when they are needed, over time.

    uv run benchmarks/streamed_study.py --images 200000 --folder /tmp/streamed

Generates JPEG files of 64x64 pixels in `--folder` if they are missing, and runs the study of
neurons at the small scale on them, with an epoch of training. Prints, every half minute, the
proportional share of memory (PSS) of all its processes, and the last line of the log; at the end
the peak. Further settings of the study may follow.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from generated_images import generate, proportional_memory

ROOT = Path(__file__).parents[1]
# Seconds between two samples, and between two lines of the table.
SAMPLES, LINES = 0.5, 30


def command(root: Path, *, store: Path, run: Path, workers: int) -> list[str]:
    """The study of the images in `root`, in the folder `run`."""
    return [
        *(sys.executable, str(ROOT / "run.py"), "experiment=cifar10/neurons", "scale=small"),
        *("data=image_folder", f"data.source.root={root}", "data.source.size=32"),
        *("data.storage=disk", f"data.workers={workers}", "data.total=null"),
        *("recipe.epochs=1", "experts.held_out=[]", "fine_tuning=none", "logger=[]"),
        *(f"~evaluation_networks.{name}" for name in ("alexnet", "vgg16", "resnet18")),
        *("adversary.images=500", f"store={store}", f"hydra.run.dir={run}"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    options, settings = parser.parse_known_args()
    root = generate(options.folder, options.images)
    log, store = options.folder / "study.log", options.folder / "store"
    folder = options.folder / "runs" / time.strftime("%Y-%m-%d_%H-%M-%S")
    peak, last, start = 0.0, -float(LINES), time.monotonic()
    with log.open("w") as output:
        study = subprocess.Popen(
            [*command(root, store=store, run=folder, workers=options.workers), *settings],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    while study.poll() is None:
        peak = max(peak, now := proportional_memory(study.pid))
        if (elapsed := time.monotonic() - start) - last >= LINES:
            last = elapsed
            line = (log.read_text().splitlines() or [""])[-1]
            print(f"{elapsed:6.0f} s {now:6.0f} MB  {line[:90]}", flush=True)
        time.sleep(SAMPLES)
    print(f"{options.images} images: peak {peak:.0f} MB in {time.monotonic() - start:.0f} s")
    if study.returncode:
        raise SystemExit(log.read_text())


if __name__ == "__main__":
    main()
