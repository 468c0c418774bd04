"""Measures variants of a computation, each in its own process, and prints a table.

In its own process, a variant starts with a new allocator and has its own memory peak. The variants
alternate, round after round, so that other load on the machine affects all of them alike.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tables import Cell as Cell
from tables import table_lines, write_json

Variant = Callable[[argparse.Namespace], Callable[[], Any]]


def arguments(description: str, *, toy: bool = False) -> argparse.ArgumentParser:
    """The arguments of a benchmark; `toy`: whether it has sizes of seconds, for tests."""
    parser = argparse.ArgumentParser(description=description)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="the paper's sizes; for a GPU")
    if toy:
        size.add_argument("--toy", action="store_true", help="sizes of seconds, for tests")
    parser.add_argument("--rounds", type=int, default=2, help="processes per variant")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs per process")
    parser.add_argument("--only", nargs="*", help="variants to measure; default: all")
    parser.add_argument("--json", type=Path, help="write the values here, after each variant")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    return parser


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def measure(run: Callable[[], Any], *, repeats: int) -> dict[str, float]:
    """Median seconds of `run` after one run to warm up, and the MiB it needs at its peak."""
    gc.collect()
    before = _memory()
    times = [_seconds(run) for _ in range(1 + repeats)]
    # Without the warm-up run, unless it is the only one.
    return {"seconds": statistics.median(times[1:] or times), "MiB": peak() - before}


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def _memory() -> float:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    # Return freed memory to the system; reset the peak, which is that of imports so far.
    ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    except OSError:
        return peak()


def peak() -> float:
    """The MiB of this process at its peak: on the GPU, or in main memory with imports."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_processes(
    script: str, names: Sequence[str], args: argparse.Namespace
) -> dict[str, dict[str, float] | str]:
    """The report of each variant, median over its processes; for a failed variant the reason."""
    if unknown := set(args.only or []) - set(names):
        sys.exit(f"--only {min(unknown)!r}: choose some of {', '.join(map(repr, names))}")
    selected = [name for name in names if not args.only or name in args.only]
    reports: dict[str, list[dict[str, float]]] = {name: [] for name in selected}
    failed: dict[str, str] = {}
    for round_ in range(args.rounds):
        for name in selected:
            if name in failed:
                continue
            print(f"round {round_ + 1} of {args.rounds}: {name}", file=sys.stderr, flush=True)
            command = [sys.executable, script, "--variant", name, "--repeats", str(args.repeats)]
            command += ["--full"] * args.full + ["--toy"] * getattr(args, "toy", False)
            process = subprocess.run(command, capture_output=True, text=True, check=False)
            if process.returncode == 0:
                reports[name].append(json.loads(process.stdout.splitlines()[-1]))
                figures = (f"{key} {value:.3g}" for key, value in reports[name][-1].items())
                print("    " + ", ".join(figures), file=sys.stderr, flush=True)
            else:
                reason = process.stderr.strip().splitlines()[-1:] or ["killed: out of memory?"]
                failed[name] = f"failed: {reason[0][:90]}"
            if args.json:
                write_json(args.json, _values(reports, failed))
    return _values(reports, failed)


def _values(
    reports: Mapping[str, list[dict[str, float]]], failed: Mapping[str, str]
) -> dict[str, dict[str, float] | str]:
    """The values of the variants that have run."""
    return {
        name: failed.get(name) or _medians(of_variant)
        for name, of_variant in reports.items()
        if name in failed or of_variant
    }


def _medians(reports: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(report[key] for report in reports) for key in reports[0]}


def report(values: Mapping[str, float]) -> None:
    print(json.dumps(values))


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a Markdown table."""
    print("\n".join(table_lines(head, rows)))
