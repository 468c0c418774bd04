"""`cwx ls`: which runs there are, how they stand and what they measured."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

from cwx.cli.commands.run_filters import kept
from cwx.cli.parser import Parser, called, existing_folder, meant
from cwx.cli.tables import Cell, plain, say, table, when
from cwx.errors import UserError
from cwx.storage.quantities import duration
from cwx.storage.runs import STATES, Run, find_runs, waiting

# Shown if nothing else is asked for: the first that is there, of each of these kinds.
_MAIN = (
    ("accuracy/expert/clean", "accuracy/expert", "attack_success/expert/accuracy"),
    ("fidelity/ratio", "fidelity/seen/ratio"),
    ("attack_success/expert/success", "construction/*/made"),
    ("discriminative/distill/expert", "discriminative/*/expert"),
    (
        "predictive_power/power/iscp/0.05",
        "predictive_power/power/*/0.05",
        "predictive_power/power/*/*",
    ),
)
_SORTS = ("when", "experiment", "state", "time", "folder")


def parser() -> Parser:
    name = f"{called()} ls"
    parsed = Parser(
        "ls",
        does="List runs, the newest first, those of a sweep together.",
        examples=f"""  {name}                                     all below runs/
  {name} runs/cifar10 --state failed,lost
  {name} --experiment 'cifar10/*' --metric fidelity/ratio --metric 'predictive_power/power/*'
  {name} corruption=badnets 'corruption.rate=0.2*' --sort fidelity/ratio
  {name} --json | jq '.[] | select(.state == "lost") | .folder'

A run that says it is running, but whose process is gone, is lost: continue it with
  {called()} resume=<folder>""",
    )
    parsed.add_argument(
        "what",
        nargs="*",
        metavar="folder | key=value",
        help="where to look (runs), and which settings or choices runs must have: * stands for "
        "anything, a comma for or",
    )
    parsed.add_argument("--experiment", metavar="NAME", help="of this name; * stands for anything")
    parsed.add_argument("--state", metavar="STATE", help=f"one or more of {', '.join(STATES)}")
    parsed.add_argument(
        "--metric", action="append", metavar="NAME", help="numbers to show; * stands for anything"
    )
    parsed.add_argument(
        "--sort", default="when", metavar="BY", help=f"one of {', '.join(_SORTS)}, or a number"
    )
    parsed.add_argument("--reverse", action="store_true", help="the other way round")
    parsed.add_argument("--json", action="store_true", help="everything known, for programs")
    return parsed


def main(argv: Sequence[str]) -> None:
    """List runs.

    Raises:
        UserError: what is asked for cannot be.
    """
    asked = parser().parse_intermixed_args(argv)
    filters = [one for one in asked.what if "=" in one and not Path(one).is_dir()]
    folders = [one for one in asked.what if one not in filters]
    everything = [r for f in _folders(folders) for r in find_runs(f)]
    runs = kept(everything, filters, experiment=asked.experiment, states=asked.state)
    runs = _ordered(runs, by=asked.sort, backwards=asked.reverse)
    if asked.json:
        say(json.dumps([_described(run) for run in runs], indent=2))
    elif not everything:
        where = ", ".join(map(plain, folders)) or "runs"
        say(f"no runs in {where} yet: start one with {called()} experiment=digits/quickstart")
    elif not runs:
        say(f"none of {len(everything)} runs is of that kind")
    else:
        say(_listed(runs, _columns(runs, asked.metric), asked=asked.metric is not None))


def _folders(given: Sequence[str]) -> list[Path]:
    if given:
        return [existing_folder(folder) for folder in given]
    # Which no run has made yet.
    return [Path("runs")] if Path("runs").is_dir() else []


def _ordered(runs: list[Run], *, by: str, backwards: bool) -> list[Run]:
    """Sorted; the jobs of a sweep stand together, where the first of them would."""
    ways: dict[str, Callable[[Run], Any]] = {
        "when": lambda run: run.started,
        "experiment": lambda run: run.experiment,
        "state": lambda run: STATES.index(run.state),
        "time": lambda run: run.seconds or 0.0,
        "folder": lambda run: _natural(str(run.folder)),
    }
    measured = {name for run in runs for name in run.metrics}
    if by not in ways and runs and by not in measured:
        raise UserError(f"there is no {plain(by)} to sort by: {meant(by, [*ways, *measured])}")
    # Those without the number last, either way.
    key = ways.get(by, lambda run: run.metrics.get(by, 0.0))
    lacking = [run for run in runs if by not in ways and by not in run.metrics]
    having = [run for run in runs if run not in lacking]
    having.sort(key=ways["folder"])
    # The newest first.
    having.sort(key=key, reverse=backwards != (by == "when"))
    groups: dict[Path, list[Run]] = {}
    for run in [*having, *lacking]:
        groups.setdefault(_group(run), []).append(run)
    if by == "when":
        # As a sweep numbers them.
        for jobs in groups.values():
            jobs.sort(key=ways["folder"], reverse=backwards)
    return [run for jobs in groups.values() for run in jobs]


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts numbers in names as numbers: job 10 comes after job 9."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)
    ]


def _group(run: Run) -> Path:
    return (run.sweep or run.folder).absolute()


def _columns(runs: Sequence[Run], asked: Sequence[str] | None) -> list[str]:
    """The numbers to show.

    Raises:
        UserError: no run has a number that is asked for.
    """
    measured = {name: None for run in runs for name in run.metrics}
    if asked is None:
        found = (_first(kind, measured) for kind in _MAIN)
        return [name for name in found if name is not None]
    columns: dict[str, None] = {}
    for pattern in asked:
        names = [name for name in measured if fnmatchcase(name, pattern)]
        if not names and measured:
            raise UserError(f"no run has a number {plain(pattern)}: {meant(pattern, measured)}")
        columns |= dict.fromkeys(names)
    return list(columns)


def _first(patterns: Iterable[str], names: Iterable[str]) -> str | None:
    known = list(names)
    found = (name for pattern in patterns for name in known if fnmatchcase(name, pattern))
    return next(found, None)


def _listed(runs: Sequence[Run], columns: Sequence[str], *, asked: bool) -> str:
    """A table; of numbers that nobody asked for, as many as a terminal is wide enough for."""
    rows: list[list[Cell]] = []
    for _, members in groupby(runs, key=_group):
        jobs = list(members)
        if sweep := jobs[0].sweep:
            states = Counter(run.state for run in jobs)
            if left := waiting(sweep):
                states["not begun"] = left
            told = ", ".join(f"{count} {state}" for state, count in states.items())
            rows.append([str(sweep), "", "", "", "", *[None] * len(columns), told])
        rows += [_row(run, columns) for run in jobs]
    header = ["run", "experiment", "started", "state", "time", *columns, "settings"]
    first = len(header) - len(columns) - 1
    spare = () if asked else range(len(header) - 2, first - 1, -1)
    return table(header, rows, shrink=len(header) - 1, spare=spare)


def _row(run: Run, columns: Sequence[str]) -> list[Cell]:
    return [
        f"  {run.folder.relative_to(run.sweep)}" if run.sweep else str(run.folder),
        run.experiment,
        when(run.started),
        run.state,
        duration(_elapsed(run)),
        *(run.metrics.get(name) for name in columns),
        _settings(run),
    ]


def _settings(run: Run) -> str:
    """Why the run has not finished, which a narrow terminal must not cut off, and what was set."""
    # The experiment has a column.
    words = [override for override in run.swept if not override.startswith("experiment=")]
    reason = run.status.get("reason")
    return " ".join([*([f"({reason})"] if reason else []), *words])


def _elapsed(run: Run) -> float | None:
    if run.state == "running":
        return (datetime.now(UTC) - run.started).total_seconds()
    return run.seconds


def _described(run: Run) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "experiment": run.experiment,
        "started": run.started.isoformat(),
        "state": run.state,
        "reason": run.status.get("reason"),
        "seconds": run.seconds,
        "sweep": str(run.sweep) if run.sweep else None,
        "swept": list(run.swept) if run.sweep else [],
        "overrides": list(run.overrides),
        "commit": run.status.get("commit"),
        "metrics": dict(run.metrics),
    }
