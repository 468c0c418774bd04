"""Measures variants of a computation, each in a process of its own, and prints a table.

A process of its own gives each variant an allocator that nothing has warmed and a peak of memory
that is its own. The variants take turns, round after round, so that a machine that others slow
down for a while slows all of them.
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

Variant = Callable[[argparse.Namespace], Callable[[], Any]]
Cell = float | str | None


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true", help="the paper's sizes; for a GPU")
    parser.add_argument("--rounds", type=int, default=2, help="processes a variant")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs a process")
    parser.add_argument("--only", nargs="*", help="variants to measure; all if left out")
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
    # The first run warms up, unless it is the only one.
    return {"seconds": statistics.median(times[1:] or times), "MiB": _peak() - before}


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - began


def _memory() -> float:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    # What was freed counts for nothing; the peak so far is that of loading libraries.
    ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    except OSError:
        return _peak()


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_processes(
    script: str, names: Sequence[str], given: argparse.Namespace
) -> dict[str, dict[str, float] | str]:
    """What each variant reports, median over its processes; a word where one fails."""
    chosen = [name for name in names if not given.only or name in given.only]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    failed: dict[str, str] = {}
    for turn in range(given.rounds):
        for name in chosen:
            if name in failed:
                continue
            print(f"round {turn + 1} of {given.rounds}: {name}", file=sys.stderr, flush=True)
            command = [sys.executable, script, "--variant", name, "--repeats", str(given.repeats)]
            command += ["--full"] if given.full else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
                figures = (f"{key} {value:.3g}" for key, value in found[name][-1].items())
                print("    " + ", ".join(figures), file=sys.stderr, flush=True)
            else:
                reason = done.stderr.strip().splitlines()[-1:] or ["killed: out of memory?"]
                failed[name] = f"failed: {reason[0][:90]}"
    return {name: failed.get(name) or _medians(found[name]) for name in chosen}


def _medians(reports: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(report[key] for report in reports) for key in reports[0]}


def report(values: Mapping[str, float]) -> None:
    print(json.dumps(values))


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a Markdown table."""
    text = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *text, strict=True)]
    for row in (list(head), ["-" * width for width in widths], *text):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("| " + " | ".join(cells) + " |")


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:.3g}"
