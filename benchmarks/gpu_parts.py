"""The parts of `benchmarks/gpu.py` that no other benchmark has: a process each.

    python benchmarks/gpu_parts.py experts --json experts.json --work folder

The settings are those of `experiment=cifar10/cwx`. A part measures its own speed and ends before
`--until`; the JSON file is replaced after each measured value.
"""

import argparse
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import lightning as L
import torch
from expert_epoch import Generated
from hydra.utils import instantiate
from tables import write_json

from cwx.cli.allocator import keep_freed_memory
from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder
from cwx.cli.resolvers import register_resolvers
from cwx.cli.run import quiet
from cwx.data.datamodule import ImageData
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.build import NetworkFactory, build_network
from cwx.training.precision import Precisions
from cwx.training.stages import ExpertRequest, Stages
from cwx.training.subject import Subject

# Experts and epochs of the paper's distillation, its outer steps, and those of them to measure.
EXPERTS, EPOCHS, OUTER_STEPS, MEASURED = 8, 50, 5000, 200
TOY = {
    "network.width": 4, "recipe.batch_size": 32, "method.distill.inner.steps": 2,
    "method.distill.images_per_class": 1, "method.distill.unroll.compile": "null",
}  # fmt: skip
# Steps that compile or warm up.
_FIRST = 3
# Seconds for the end of a part.
_RESERVE = 10.0


class Report:
    """Writes measured values, by row, each time one changes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, Any] = {}

    def record(self, row: str, **values: Any) -> None:
        self.rows[row] = {**self.rows.get(row, {}), **values}
        write_json(self.file, self.rows)


def configuration(args: argparse.Namespace) -> dict[str, Any]:
    """The resolved settings of the paper's study on CIFAR-10."""
    register_resolvers()
    changes = [f"{name}={value}" for name, value in TOY.items()] if args.toy else []
    # TF32 in training: the speed that a user would choose; the outer steps are in single precision.
    chosen = [
        "experiment=cifar10/cwx", "method=[distill]", "evaluation=[]", "logger=[]",
        "precision@precision.experts=tf32", "data.source.download=false",
    ]  # fmt: skip
    if args.data:
        chosen.append(f"data.source.root={args.data}")
    return compose_checked(
        configuration_folder(), [*chosen, *changes], multirun=False, extra=None, resumed=None
    )


def build(settings: Any) -> Any:
    return instantiate(settings, _convert_="all")


def image_data(args: argparse.Namespace, settings: dict[str, Any]) -> ImageData:
    if args.data:
        data = build(settings["data"])
    else:
        given = {k: v for k, v in settings["data"].items() if k not in ("_target_", "source")}
        data = ImageData(source=Generated(200 if args.toy else 50_000), **given)
    data.setup()
    return data


class EpochClock(L.Callback):
    """Measures epochs; shortens the training if it would not end in time."""

    def __init__(self, report: Report, row: str, end: float) -> None:
        self.report, self.row, self.end = report, row, end
        self.times = [time.perf_counter()]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        harness.synchronize()
        self.times.append(time.perf_counter())
        epochs = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        seconds = statistics.median(epochs[1:] or epochs)
        images = len(pl_module.batches.splits.train) * len(pl_module.networks)
        done = len(epochs)
        fitting = done + max((self.end - time.monotonic()) // seconds, 0)
        if fitting < pl_module.epochs:
            # The recording is complete at the last epoch: both have to know it.
            pl_module.epochs = trainer.fit_loop.max_epochs = max(int(fitting), done + 1)
        self.report.record(
            self.row,
            seconds=seconds,
            MiB=harness.peak(),
            epochs=done,
            **{f"estimate for {EPOCHS} (s)": seconds * EPOCHS, "images/s": images / seconds},
        )


class StepClock(L.Callback):
    """Measures steps; ends the training when its time is over."""

    def __init__(self, report: Report, row: str, end: float) -> None:
        self.report, self.row, self.end = report, row, end
        self.times = [time.perf_counter()]

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        harness.synchronize()
        self.times.append(time.perf_counter())
        steps = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        seconds = statistics.median(steps[_FIRST:] or steps)
        first = sum(steps[:_FIRST])
        self.report.record(
            self.row,
            seconds=seconds,
            MiB=harness.peak(),
            steps=len(steps),
            **{
                f"first {_FIRST} (s)": first,
                f"estimate for {OUTER_STEPS} (s)": first + seconds * (OUTER_STEPS - _FIRST),
                "distance": trainer.callback_metrics["distill/loss"].item(),
            },
        )
        if time.monotonic() > self.end:
            trainer.should_stop = True


def stages(settings: dict[str, Any], callback: L.Callback) -> Stages:
    """Fits modules as a study does, with one more callback."""
    factory = build(settings["trainer"])
    precisions: Precisions = build(settings["precision"])
    return Stages(
        lambda callbacks, **given: factory(callbacks=[*callbacks, callback], **given), precisions
    )


def train(
    args: argparse.Namespace, report: Report, settings: dict[str, Any], data: ImageData,
    *, seeds: Sequence[int], epochs: int, end: float,
) -> list[Trajectory]:  # fmt: skip
    """Experts trained in parallel, in the store of the work folder."""
    row = f"an epoch of {len(seeds)} experts in parallel"
    recipe, network = build(settings["recipe"]), build(settings["network"])

    def module(missing: Sequence[ExpertRequest]) -> Any:
        return recipe(
            networks=[build_network(network, data, seed=expert.seed) for expert in missing],
            data=data,
            seeds=[expert.seed for expert in missing],
            stages=[expert.stage for expert in missing],
            epochs=epochs,
        )

    requests = [ExpertRequest(f"expert-{s}", s, {"seed": s, "epochs": epochs}) for s in seeds]
    trajectories = stages(settings, EpochClock(report, row, end)).train(
        module, requests, TrajectoryStore(args.work / "store"), at_once=len(seeds)
    )
    accuracies = [t.accuracy(t.epochs) for t in trajectories]
    report.record(row, accuracy=statistics.mean(accuracies))
    return trajectories


def experts(args: argparse.Namespace, report: Report, end: float) -> None:
    settings = configuration(args)
    seeds, epochs = (range(2), 2) if args.toy else (range(EXPERTS), EPOCHS)
    data = image_data(args, settings)
    train(args, report, settings, data, seeds=seeds, epochs=epochs, end=end)


def outer_steps(args: argparse.Namespace, report: Report, end: float) -> None:
    settings = configuration(args)
    data = image_data(args, settings)
    trajectories = _complete(args.work / "store")
    if not trajectories:
        # The part before has failed. Few epochs are enough: a step takes as long from any.
        share = time.monotonic() + (end - time.monotonic()) / 3
        trajectories = train(args, report, settings, data, seeds=[0], epochs=3, end=share)
    last = min(trajectory.epochs for trajectory in trajectories)
    method = settings["method"]["distill"]
    span = min(method["span"], last)
    start_max = min(method["start_max"], last - span)
    count = _FIRST + 2 if args.toy else MEASURED
    row = f"an outer step, starts 0-{start_max}, N = {span}, M = {method['inner']['steps']}"
    network: NetworkFactory = build(settings["network"])
    clock = StepClock(report, row, end)
    fitting = stages(settings, clock)
    subject = Subject(
        data=data,
        factory=network,
        trajectories=trajectories,
        held_out=[],
        evaluation_networks={},
        device=fitting.device,
    )
    changes = {"span": span, "start_max": start_max, "iterations": count}
    distill = build({**method, **changes})(subject=subject, seed=0, stage="distill")
    clock.times = [time.perf_counter()]
    fitting.fit(distill, args.work / "distill.ckpt", [])


def _complete(store: Path) -> list[Trajectory]:
    return [Trajectory(file.parent) for file in sorted(store.glob("*/complete.json"))]


def machine(args: argparse.Namespace, report: Report, _: float) -> None:
    """Hardware, versions and commit; fails without the device."""
    gpu: dict[str, Any] = {}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = {"GPU": properties.name, "GPU memory (MiB)": properties.total_memory // 2**20}
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        gpu["driver"] = _output(query).splitlines()[0] if _output(query) else "unknown"
    versions = {m.__name__: m.__version__ for m in (torch, L)}
    commit = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    report.record(
        "provenance",
        **gpu,
        processor=harness.machine(),
        python=platform.python_version(),
        **versions,
        CUDA=str(torch.version.cuda),
        cuDNN=str(torch.backends.cudnn.version()),
        commit=_output(commit) or "unknown",
    )
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU: check its driver, or test with --toy --device cpu")


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


PARTS = {"machine": machine, "experts": experts, "outer_steps": outer_steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="that must be there")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--until", type=float, default=math.inf, help="end, on the monotonic clock")
    args = parser.parse_args()
    quiet()
    keep_freed_memory()
    PARTS[args.part](args, Report(args.json), args.until - _RESERVE)


if __name__ == "__main__":
    main()
