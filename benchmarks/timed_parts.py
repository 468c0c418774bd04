"""Processes that measure something, each with a time limit: their results as JSON and a table."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import Cell, table_lines, write_atomically, write_json

ROOT = Path(__file__).parents[1]
TOTAL = 480.0
# Of the whole time, for the start and the end of the processes.
RESERVE = 10.0
_TAIL = 12

Rows = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process that measures something.

    Attributes:
        name: in the results.
        seconds: its time limit, without the time that earlier parts leave.
        command: its command line; ``{json}`` stands for the file that it replaces after each
            measured value, ``{until}`` for the time on the monotonic clock when it is killed.
        read: the rows that it has measured, from that file, or from the ``.log`` file beside it
            with its output.
        required: whether the other parts make no sense without it.
    """

    name: str
    seconds: float
    command: Sequence[str]
    read: Callable[[Path], Rows]
    required: bool = False


def rows_of_json(file: Path) -> Rows:
    with suppress(OSError, ValueError):
        rows = json.loads(file.read_text())
        return rows if isinstance(rows, dict) else {}
    return {}


def rows_of_pytest(file: Path) -> Rows:
    """The numbers of passed and failed tests, and the names of the failed ones, of ``pytest -v``.

    Of ``pytest --collect-only``, the number of tests.
    """
    output = file.with_suffix(".log").read_text(errors="replace")
    lines = [line for line in output.splitlines() if ".py::" in line]
    results: dict[str, list[str]] = {w: [] for w in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    for line in lines:
        for word, names in results.items():
            # Lines of the summary begin with the word.
            if f" {word}" in line:
                names.append(line.split(f" {word}")[0].strip())
    counts = {word.lower(): len(names) for word, names in results.items() if names}
    rows: Rows = {"tests": counts or {"collected": len(lines)}} if lines else {}
    return rows | {name: "failed" for word in ("FAILED", "ERROR") for name in results[word]}


def run_part(part: Part, folder: Path, seconds: float, environment: Mapping[str, str]) -> Rows:
    """Run a part; kill it with its children when its time is over.

    Returns:
        ``state``, ``seconds``, ``rows``, and the end of its output unless it finished.
    """
    file, log = folder / f"{part.name}.json", folder / f"{part.name}.log"
    file.unlink(missing_ok=True)
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                argument.replace("{json}", str(file)).replace("{until}", str(start + seconds))
                for argument in part.command
            ],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A process group of its own, to kill it with its children.
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=seconds)
            state = "finished" if code == 0 else f"failed with exit status {code}"
        except subprocess.TimeoutExpired:
            state = f"timed out after {seconds:.0f} s"
        finally:
            # Also its children that are left when it has ended, or when this process is stopped.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text(errors="replace")
    result: Rows = {"state": state, "seconds": time.monotonic() - start}
    result["rows"] = part.read(file)
    if state != "finished":
        result["output"] = text.splitlines()[-_TAIL:]
    return result


def run_parts(
    parts: Sequence[Part],
    results: Rows,
    folder: Path,
    environment: Mapping[str, str],
    save: Callable[[Rows], None],
    *,
    total: float = TOTAL,
) -> None:
    """Run the parts one after another; `save` the results before each and after the last.

    Args:
        results: receives the parts' results under ``parts``.
        folder: for the files of the parts.
        total: seconds for all parts together.
    """
    end = time.monotonic() + total - RESERVE
    results["parts"] = {part.name: {"state": "not run"} for part in parts}
    left = end - time.monotonic() - sum(part.seconds for part in parts)
    for part in parts:
        save(results)
        # What earlier parts have left, and never more than is left of the whole.
        start = time.monotonic()
        limit = min(part.seconds + max(left, 0.0), end - start)
        if limit <= 0:
            results["parts"][part.name] = {"state": "not run: no time was left"}
            continue
        print(f"{part.name}: at most {limit:.0f} s", file=sys.stderr, flush=True)
        try:
            results["parts"][part.name] = run_part(part, folder, limit, environment)
        except OSError as error:
            results["parts"][part.name] = {"state": f"failed to start: {error}"}
        left += part.seconds - (time.monotonic() - start)
        result = results["parts"][part.name]
        print(f"    {result['state']}", file=sys.stderr, flush=True)
        # Not if it ran out of time: the start of a first process may be slow.
        if part.required and result["state"].startswith("failed"):
            print("\n".join(result.get("output", [])), file=sys.stderr, flush=True)
            break
    save(results)


def has_failed(part: Rows) -> bool:
    """Whether a part, or one of its rows, has failed."""
    return part["state"] != "finished" or any(isinstance(v, str) for v in part["rows"].values())


def markdown(results: Rows) -> str:
    """The results as one table."""
    lines: list[list[Cell]] = []
    for name, part in results["parts"].items():
        seconds = part.get("seconds")
        lines.append([name, part["state"], seconds, None, ""])
        for row, values in part.get("rows", {}).items():
            if not isinstance(values, dict):
                lines.append(["", row, None, None, str(values)])
                continue
            rest = {k: v for k, v in values.items() if k not in ("seconds", "MiB")}
            words = ", ".join(f"{key} {_number(value)}" for key, value in rest.items())
            lines.append(["", row, values.get("seconds"), values.get("MiB"), words])
    head = [f"{key}: {value}" for key, value in results.items() if key != "parts"]
    table = table_lines(["part", "", "s", "peak MiB", ""], lines)
    return "\n".join([*head, "", *table, ""])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(results: Rows, out: Path) -> None:
    """Replace ``<out>.json`` and ``<out>.md``, each atomically."""
    write_json(out.with_name(f"{out.name}.json"), results)
    write_atomically(out.with_name(f"{out.name}.md"), markdown(results))
