"""The directory of a run: writable, and used by no other run.

Hydra saves the settings of a run into its directory before cwx checks it. A second run in the same
directory would overwrite the settings of the first.
"""

import functools
import itertools
import os
from pathlib import Path

from cwx.errors import UserError
from cwx.storage.run_files import STATUS
from cwx.storage.run_folders import is_sweep


def check(folder: Path, *, multirun: bool) -> None:
    """Create the directory that the user named for a new run or sweep.

    Raises:
        UserError: it holds a run or a sweep already, or it is not writable.
    """
    setting = f"hydra.{'sweep' if multirun else 'run'}.dir"
    if multirun and is_sweep(folder):
        raise UserError(
            f"{folder} holds a sweep already: continue it with resume={folder}, or choose another "
            f"{setting}"
        )
    if (folder / STATUS).exists():
        raise UserError(
            f"{folder} holds a run already: continue it with resume={folder}, or choose another "
            f"{setting}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error.strerror, setting) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _not_writable(folder, "it may not be written", setting)


@functools.cache
def unused(folder: str) -> str:
    """Create the directory of a run: `folder`, or `folder`-2, -3, … if another run has it.

    Raises:
        UserError: the directory cannot be created.
    """
    for number in itertools.count(1):
        name = folder if number == 1 else f"{folder}-{number}"
        try:
            Path(name).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _not_writable(folder, error.strerror, "hydra.run.dir") from error
        return name
    raise AssertionError("count() does not end")


def _not_writable(folder: Path | str, why: str | None, setting: str) -> UserError:
    return UserError(
        f"the folder {folder} cannot be created or written ({why}): choose another by {setting}=…"
    )
