"""Finding the folders of runs and sweeps on disk."""

import os
from collections.abc import Iterator
from os.path import lexists
from pathlib import Path

from cwx.storage.run_files import MULTIRUN, STATUS, SWEEP

OVERRIDES = Path(".hydra") / "overrides.yaml"
# Job folders may be nested: their names may contain settings with slashes.
_MAX_DEPTH = 4
# Folders inside a run's folder that hold no runs.
_OWN_FOLDERS = {"tables", "figures", "logs", "wandb", "checkpoints"}


def is_run(folder: Path) -> bool:
    return lexists(folder / STATUS) or lexists(folder / OVERRIDES)


def is_sweep(folder: Path) -> bool:
    return lexists(folder / MULTIRUN) or lexists(folder / SWEEP)


def sweep_of(folder: Path) -> Path | None:
    """The folder of the sweep of the run in `folder`; ``None`` if it has none."""
    parents = folder.absolute().parents[:_MAX_DEPTH]
    sweep = next((parent for parent in parents if is_sweep(parent)), None)
    if sweep is None:
        return None
    # Relative if `folder` is relative.
    depth = parents.index(sweep)
    return folder.parents[depth] if depth < len(folder.parents) else sweep


def walk(folder: Path, *, nested: bool = False) -> Iterator[tuple[Path, str | None]]:
    """Folders of runs, ordered by path, and unreadable folders with the reason.

    Args:
        nested: also runs inside of runs.
    """
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        inside = is_run(folder)
        if inside:
            yield folder, None
            if not nested:
                continue
        try:
            with os.scandir(folder) as entries:
                names = sorted((e.name for e in entries if _is_folder(e)), reverse=True)
        except (OSError, ValueError) as error:
            # A folder that does not exist holds no run.
            if lexists(folder):
                yield folder, read_fault(error, "the folder")
            continue
        own = {*_OWN_FOLDERS, STATUS} if inside else set()
        waiting += [folder / name for name in names if name not in own]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def read_fault(error: BaseException, name: str) -> str:
    """One line that says why the file `name` cannot be read."""
    reason = getattr(error, "strerror", None) or str(error)
    return f"{name} cannot be read: {' '.join(str(reason).split())[:200]}"
