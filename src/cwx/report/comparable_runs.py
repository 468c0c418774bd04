"""Which of a set of runs can stand side by side."""

from collections.abc import Iterable, Sequence

from cwx.report.run import Run
from cwx.report.sweep_axes import points, setting, swept


def comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of runs, each of the same classes.

    Those of the same classes are one group if they lie along a setting that was swept; otherwise
    they are compared within an experiment or sweep.
    """
    return [
        group
        for together in _of_same_classes(runs)
        for group in ([together] if _in_line(together) else _related(together))
    ]


def experiment(run: Run) -> str:
    return str(run.choices.get("experiment") or run.status.get("experiment") or "runs")


def _of_same_classes(runs: Iterable[Run]) -> list[list[Run]]:
    together: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        together.setdefault(tuple(run.classes), []).append(run)
    # What failed before it knew its classes belongs where its data are.
    for run in together.pop((), []) if len(together) > 1 else []:
        likely = (of for of in together.values() if setting(of[0], "data") == setting(run, "data"))
        next(likely, [run]).append(run)
    return list(together.values())


def _in_line(runs: Sequence[Run]) -> bool:
    axes = swept(runs)
    return not axes or points(runs, axes)[0] is not None


def _related(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs of one experiment or of one sweep, and what is related to any of them."""
    groups: list[tuple[set[str], list[Run]]] = []
    for run in runs:
        keys = {experiment(run)}
        if (run.folder.parent / "multirun.yaml").exists():
            keys.add(str(run.folder.resolve().parent))
        joined = [group for group in groups if group[0] & keys]
        groups = [group for group in groups if not group[0] & keys]
        groups.append(
            (
                keys.union(*(of for of, _ in joined)),
                [*(member for _, members in joined for member in members), run],
            )
        )
    return [members for _, members in groups]
