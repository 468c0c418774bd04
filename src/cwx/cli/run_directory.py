"""The folder of a run: one that no other run has, and that can be written.

Hydra writes the settings of a run into its folder before anything of ours looks at it, so that a
second run in the same folder would leave the first with settings that are not its own.
"""

import functools
import itertools
import os
from pathlib import Path

from cwx.errors import UserError
from cwx.storage.run_files import STATUS


def check(folder: Path, *, multirun: bool) -> None:
    """Make the folder that a new run or a new sweep is told to take.

    Raises:
        UserError: it holds a run already, or nothing can be written there.
    """
    setting = f"hydra.{'sweep' if multirun else 'run'}.dir"
    if (folder / STATUS).exists():
        raise UserError(
            f"{folder} holds a run already: continue it with resume={folder}, or choose another "
            f"{setting}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error.strerror, setting) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refused(folder, "it may not be written", setting)


@functools.cache
def unused(folder: str) -> str:
    """Make the folder of a run: `folder`, or one numbered if another run has just taken that.

    Raises:
        UserError: it cannot be made.
    """
    for number in itertools.count(1):
        name = folder if number == 1 else f"{folder}-{number}"
        try:
            Path(name).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _refused(folder, error.strerror, "hydra.run.dir") from error
        return name
    raise AssertionError("numbers do not end")


def _refused(folder: Path | str, why: str | None, setting: str) -> UserError:
    return UserError(
        f"the folder {folder} cannot be made or written ({why}): choose another by {setting}=…"
    )
