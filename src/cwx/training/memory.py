"""Errors of a device whose memory does not suffice, with the setting that needs less."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from cwx.errors import UserError

# Of libraries that torch calls, and of torch on a CPU; they raise a RuntimeError.
_MESSAGES = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device, or of this machine, does not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


@contextmanager
def memory_advice(work: str, advice: Callable[[], str]) -> Iterator[None]:
    """A context in which an error for lack of memory names a remedy.

    Args:
        work: what is done, to begin the message.
        advice: the settings that need less memory.

    Raises:
        UserError: the memory does not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"{work} does not fit into the memory ({reason[:200]}): {advice()}"
        ) from error


def method_advice(name: str, build: Any) -> str:
    """The settings of a method that need less memory; those that keep its result come first.

    Args:
        build: builds the method; its settings are the keywords of a partial function.
    """
    settings: Mapping[str, Any] = getattr(build, "keywords", {})
    unroll = getattr(settings.get("unroll"), "keywords", {})
    remedies = []
    if "microbatch" in unroll:
        remedies += [
            f"set method.{name}.unroll.microbatch to fewer images "
            f"({_now(unroll['microbatch'], 'all')}), which does not change the result",
            f"set method.{name}.unroll.keep_every=10 or method.{name}.unroll.offload=true",
        ]
    if "chunk" in settings:
        remedies.append(
            f"set method.{name}.chunk to fewer searches ({_now(settings['chunk'], 'all')}), which "
            "does not change the result"
        )
    for size in ("images_per_class", "batch_size", "canvases"):
        if settings.get(size) is not None and len(remedies) < 3:
            remedies.append(f"lower method.{name}.{size} ({_now(settings[size], '')})")
    return ", or ".join(remedies) or f"choose smaller sizes for method.{name}"


def _now(value: Any, none: str) -> str:
    return f"now {none if value is None else value}"
