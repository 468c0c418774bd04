"""How this process gets memory from the system."""

import ctypes
import logging
import platform

log = logging.getLogger(__name__)

# glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let glibc hand freed memory out again instead of giving it back to the kernel.

    By default every block of more than 32 MB is a mapping of its own, which the kernel fills
    with zeros anew, page by page, each time a tensor of that size is made: convolutional networks
    were measured to train two to three times as fast on a CPU without that. Does nothing where
    there is no glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    largest = 2**31 - 1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError) as error:
        log.debug("malloc is left as it is: %s", error)
        return
    mallopt(_MMAP_THRESHOLD, largest)
    mallopt(_TRIM_THRESHOLD, largest)
