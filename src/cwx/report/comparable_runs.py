"""Groups of runs that can be compared on one page."""

from collections.abc import Iterable, Sequence

from cwx.report.run import RunContents
from cwx.report.sweep_axes import setting, sweep_points, swept_axes
from cwx.storage.run_files import MULTIRUN


def comparable_groups(runs: Sequence[RunContents]) -> list[list[RunContents]]:
    """Groups of runs with the same classes.

    Runs with the same classes form one group if they lie along a swept setting. Otherwise there
    is a group per experiment or sweep.
    """
    return [
        group
        for same_classes in _by_classes(runs)
        for group in ([same_classes] if _on_one_axis(same_classes) else _related(same_classes))
    ]


def experiment_name(run: RunContents) -> str:
    return str(run.choices.get("experiment") or run.status.get("experiment") or "runs")


def _by_classes(runs: Iterable[RunContents]) -> list[list[RunContents]]:
    groups: dict[tuple[str, ...], list[RunContents]] = {}
    for run in runs:
        groups.setdefault(tuple(run.classes), []).append(run)
    # A run that failed before it knew its classes joins the runs of the same data.
    for run in groups.pop((), []) if len(groups) > 1 else []:
        same_data = (
            group for group in groups.values() if setting(group[0], "data") == setting(run, "data")
        )
        next(same_data, [run]).append(run)
    return list(groups.values())


def _on_one_axis(runs: Sequence[RunContents]) -> bool:
    axes = swept_axes(runs)
    return not axes or sweep_points(runs, axes)[0] is not None


def _related(runs: Iterable[RunContents]) -> list[list[RunContents]]:
    """Connected components: runs of the same experiment or of the same sweep are connected."""
    groups: list[tuple[set[str], list[RunContents]]] = []
    for run in runs:
        keys = {experiment_name(run)}
        if (run.folder.parent / MULTIRUN).exists():
            keys.add(str(run.folder.resolve().parent))
        connected = [group for group in groups if group[0] & keys]
        groups = [group for group in groups if not group[0] & keys]
        groups.append(
            (
                keys.union(*(group_keys for group_keys, _ in connected)),
                [*(member for _, members in connected for member in members), run],
            )
        )
    return [members for _, members in groups]
