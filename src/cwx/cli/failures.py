"""Error messages of runs, in one line: a user's error with its remedy, or a bug."""

import logging
import re
import sys
from typing import NoReturn

from cwx.errors import did_you_mean, printable
from cwx.storage.atomic import WriteError

log = logging.getLogger(__name__)


def exit_with_message(reason: object) -> NoReturn:
    """Exit with status 1 and the reason in one line."""
    line = " ".join(str(reason).split())
    sys.exit(f"cwx: {printable(line)}")


def explain_failure(error: Exception, folder: str) -> str:
    """The error in one line; its traceback goes to the run's log file.

    Args:
        folder: the run's directory, which a message about a bug refers to.
    """
    from hydra.errors import InstantiationException
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    # Stop before an ImportError: Hydra's message names the setting whose target does not exist.
    setting = ""
    while isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
        if isinstance(error.__cause__, ImportError):
            break
        setting = _setting(str(error)) or setting
        error = error.__cause__
    user_errors = (
        ValueError, OSError, MemoryError, InstantiationException, MisconfigurationException
    )  # fmt: skip
    is_lost = has_lost_rank(error)
    expected = isinstance(error, user_errors) or is_lost or "DataLoader worker" in str(error)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) or not expected:
            record = log.makeRecord(
                log.name, logging.ERROR, __file__, 0, "%s", ("the run failed",),
                (type(error), error, error.__traceback__),
            )  # fmt: skip
            handler.handle(record)
    if isinstance(error, InstantiationException):
        return _missing_target(str(error))
    if isinstance(error, WriteError):
        return f"{error}, then continue with resume={folder}"
    if setting and not expected:
        return f"{setting} cannot be built ({type(error).__name__}: {error}): correct its settings"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"the memory does not suffice ({error}): choose smaller sizes; see {folder}"
    if "DataLoader worker" in str(error):
        # PyTorch raises it wherever the main process is when the worker ends.
        return (
            f"a process that decodes images has ended ({_first_line(error)}), as when memory runs "
            f"out: free memory or lower data.workers, then continue with resume={folder}"
        )
    if is_lost:
        return (
            f"the processes of this run have lost their connection ({_first_line(error)}): one of "
            f"them has ended, or its machine; continue with resume={folder}"
        )
    if expected:
        message = str(error)
        return message if not setting or setting in message else f"{setting}: {message}"
    return f"{type(error).__name__}: {error} (a bug; see {folder})"


def has_lost_rank(error: Exception) -> bool:
    """Whether an error is that of a collective operation that another process has left."""
    return isinstance(error, RuntimeError) and bool(
        re.search(
            r"gloo.*Connection (reset|closed|refused)|NCCL.*(remote process exited|remote error)",
            str(error),
            re.DOTALL,
        )
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")


def _setting(message: str) -> str:
    """The setting that Hydra's message about a failed construction names."""
    match = re.search(r"full_key: (\S+)", message)
    return match[1] if match else ""


def _missing_target(message: str) -> str:
    """Hydra's message about an unknown `_target_`, with the nearest name in its module."""
    match = re.search(r"locating target '([^']+)'.*full_key: (\S+)", message, re.DOTALL)
    if match is None:
        return message
    target, key = match.groups()
    module, _, name = target.rpartition(".")
    known = dir(sys.modules.get(module))
    remedy = did_you_mean(name, known, "name a class or a function", prefix=f"{module}.")
    return f"{key}._target_ is {target!r}, which does not exist: {remedy}"
