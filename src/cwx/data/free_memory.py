"""Returning freed memory to the system."""

import ctypes
import logging
import platform
from functools import cache
from typing import Any

log = logging.getLogger(__name__)


def release_freed_memory() -> None:
    """Return the memory that has been freed to the system. Does nothing without glibc.

    glibc keeps it for reuse (`cwx.cli.allocator`): a stage that needed much would else leave its
    largest size to all later ones, whose workers share it.
    """
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    if platform.libc_ver()[0] != "glibc":
        return None
    try:
        library = ctypes.CDLL(None)
        return library if library.malloc_trim else None
    except (OSError, AttributeError) as error:
        log.debug("malloc_trim is not available: %s", error)
        return None
