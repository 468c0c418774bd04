"""What a GPU does with the studies, in one command of at most eight minutes.

    python benchmarks/gpu.py --data data --out gpu           CIFAR-10 from data/cifar-10-batches-py
    python benchmarks/gpu.py --out gpu                       images of noise with the same shapes
    python benchmarks/gpu.py --toy --device cpu --out toy    a test of this script, without a GPU

Writes gpu.json and gpu.md. Each part is a process with its own time limit, which includes the time
that earlier parts left. A part that fails or runs out of time leaves what it has measured, and the
others run. Both files are replaced after each part.

Parts: the tests that need a GPU; one outer iteration (`distill_step --full`); training eight
experts for 50 epochs; 200 outer steps of CWX on them, with the estimate for 5,000; mask searches
for 10 classes x 5 canvases on ResNet-50; a step of training with the consistency loss.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from timed_parts import (
    ROOT,
    Part,
    Rows,
    has_failed,
    markdown,
    rows_of_json,
    rows_of_pytest,
    run_parts,
    save,
)

BENCHMARKS = Path(__file__).parent
# As they are imported; those of the tests are not needed by the other parts.
PACKAGES = (
    "torch", "torchvision", "lightning", "torchmetrics", "hydra", "omegaconf", "antlr4", "yaml",
    "numpy", "PIL", "safetensors", "filelock", "matplotlib", "rich",
)  # fmt: skip
# Of ISCP's search on CIFAR-10: 5 passes in batches of 4 over the images of other classes among 20 %
# of the 10,000 test images.
SEARCH_STEPS = 5 * (1800 // 4)


def rows_of_search(file: Path) -> Rows:
    """As `rows_of_json`, with the time of the paper's search."""
    rows = rows_of_json(file)
    for values in rows.values():
        if isinstance(values, dict):
            name = f"estimate for {SEARCH_STEPS} steps (s)"
            values[name] = values["seconds a step"] * SEARCH_STEPS
    return rows


def parts(args: argparse.Namespace, work: Path) -> list[Part]:
    """The parts in the order in which they run; their limits sum to less than eight minutes."""
    size = "--toy" if args.toy else "--full"

    def script(name: str, variants: Iterable[str], repeats: int) -> list[str]:
        command = [sys.executable, str(BENCHMARKS / f"{name}.py"), size, "--json", "{json}"]
        return [*command, "--rounds", "1", "--repeats", str(repeats), "--only", *variants]

    def own(name: str) -> list[str]:
        command = [sys.executable, str(BENCHMARKS / "gpu_parts.py"), name, "--json", "{json}"]
        command += ["--until", "{until}", "--work", str(work)]
        return [*command, *["--toy"] * args.toy, *(["--data", str(args.data)] if args.data else [])]

    unrolls = [
        "plain unroll", "exact, eager", "exact, compiled", "exact, CUDA graphs",
        "exact, compiled, TF32",
    ]  # fmt: skip
    searches = ["together", "together, channels last", "together, TF32", "together, bf16"]
    steps = ["passes alone", "ours", "ours, channels last", "ours, channels last, bf16"]
    if args.toy:
        unrolls, searches, steps = unrolls[1:2], searches[:1], steps[1:2]
    width = 4 if args.toy else 64
    return [
        Part(
            name="machine",
            seconds=40,
            command=[*own("machine"), "--device", args.device],
            read=rows_of_json,
            required=True,
        ),
        Part(name="tests", seconds=70, command=_tests(args), read=rows_of_pytest),
        Part(name="experts", seconds=120, command=own("experts"), read=rows_of_json),
        Part(name="outer_steps", seconds=75, command=own("outer_steps"), read=rows_of_json),
        Part(
            name="mask_search",
            seconds=40,
            command=script("mask_search", [f"ResNet-50: {way}" for way in searches], 1),
            read=rows_of_search,
        ),
        Part(
            name="consistency_step",
            seconds=35,
            command=script("consistency_step", [f"{width} filters: {way}" for way in steps], 1),
            read=rows_of_json,
        ),
        Part(
            name="distill_step",
            seconds=90,
            command=script("distill_step", unrolls, 2),
            read=rows_of_json,
        ),
    ]


def _tests(args: argparse.Namespace) -> list[str]:
    files = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in file.read_text(encoding="utf-8")
    ]
    # Without a GPU, only whether they can be imported.
    how = ["-v"] if args.device == "cuda" else ["--collect-only", "-q"]
    # Without the options of pyproject.toml, which need pytest-xdist.
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "--import-mode=importlib", "-m", "gpu"]
    return [sys.executable, "-m", "pytest", *options, *how, *files]


def environment(args: argparse.Namespace, work: Path) -> dict[str, str]:
    paths = [str(ROOT / "src"), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # Reference gradients and compiled kernels: of this run alone.
        "TMPDIR": str(work),
        "PYTHONUNBUFFERED": "1",
        "WANDB_MODE": "disabled",
    }
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if args.device == "cpu" else {}
    return {**os.environ, **settings, **hidden}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10's folder; default: images of noise")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="sizes of seconds, for tests")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="path without suffix")
    parser.add_argument("--only", nargs="*", help="parts to run; default: all")
    args = parser.parse_args(argv)
    if args.data and not (args.data / "cifar-10-batches-py").is_dir():
        parser.error(f"--data {args.data} has no folder cifar-10-batches-py: name its parent")
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        parser.error(f"these packages are missing: {', '.join(missing)}")
    names = [part.name for part in parts(args, Path())]
    if unknown := set(args.only or []) - set(names):
        parser.error(f"--only {min(unknown)}: choose some of {', '.join(names)}")
    return args


def main() -> None:
    args = arguments()
    # Ends like Ctrl-C: kills the part that runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    out = args.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    args.data = args.data and args.data.resolve()
    results: Rows = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "sizes": "toy" if args.toy else "full",
        "images": "CIFAR-10" if args.data else "noise with the shapes of CIFAR-10",
    }
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cwx-gpu-") as folder:
        work = Path(folder)
        chosen = [p for p in parts(args, work) if not args.only or p.name in args.only]
        run_parts(chosen, results, work, environment(args, work), lambda r: save(r, out))
    results["seconds"] = round(time.monotonic() - start, 1)
    save(results, out)
    print(markdown(results))
    sys.exit(any(map(has_failed, results["parts"].values())))


if __name__ == "__main__":
    main()
