"""Why a run failed, in one line: what a user can put right, or a bug of ours."""

import logging
import re
import sys
from typing import NoReturn

from cwx.cli.tables import plain
from cwx.errors import did_you_mean

log = logging.getLogger(__name__)


def stop(reason: object) -> NoReturn:
    """End the process with status 1 and one line about why."""
    line = " ".join(str(reason).split())
    sys.exit(f"cwx: {plain(line)}")


def explained(error: Exception, folder: str) -> str:
    """What went wrong in one line; how it came to that goes into the run's log."""
    from hydra.errors import InstantiationException
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    # But not to an ImportError: Hydra's own words name the setting whose target is not there.
    while isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
        if isinstance(error.__cause__, ImportError):
            break
        error = error.__cause__
    users = (ValueError, OSError, InstantiationException, MisconfigurationException)
    expected = isinstance(error, users)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) or not expected:
            record = log.makeRecord(
                log.name, logging.ERROR, __file__, 0, "%s", ("the run failed",),
                (type(error), error, error.__traceback__),
            )  # fmt: skip
            handler.handle(record)
    if isinstance(error, InstantiationException):
        return _located(str(error))
    if expected:
        return str(error)
    return f"{type(error).__name__}: {error} (a bug; see {folder})"


def _located(said: str) -> str:
    """Hydra's refusal of a target, with the nearest name in a module that is there."""
    found = re.search(r"locating target '([^']+)'.*full_key: (\S+)", said, re.DOTALL)
    if found is None:
        return said
    target, key = found.groups()
    place, _, name = target.rpartition(".")
    known = dir(sys.modules.get(place))
    remedy = did_you_mean(name, known, "name a class or a function", prefix=f"{place}.")
    return f"{key}._target_ is {target!r}, which is not there: {remedy}"
