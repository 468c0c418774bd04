"""Whether images are kept in memory or decoded from disk when they are needed."""

import os
from dataclasses import dataclass
from pathlib import Path

from torch import distributed as dist

_KINDS = ("memory", "disk", "auto")
_ON_ERROR = ("stop", "skip")
_MOST_WORKERS = 16
# The limits of a container, in the two versions of Linux's control groups.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where the images of a study are while it runs.

    Attributes:
        kind: ``memory``; ``disk`` to decode them in worker processes when they are needed; ``auto``
            for disk if the decoded images of both splits exceed `memory_share`.
        memory_share: a fraction of the memory of the machine, or of its container, in 0-1.
        workers: processes that decode; ``None`` for all cores of this process but one, divided
            among the ranks of the machine, and at most 16.
        on_error: ``stop`` at a file that cannot be read, or ``skip`` it where the files are listed.
        manifests: the folder for the manifests of image files.

    Raises:
        ValueError: a setting is out of range.
    """

    kind: str
    memory_share: float
    workers: int | None
    on_error: str
    manifests: str

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("storage", self.kind, _KINDS),
            ("on_error", self.on_error, _ON_ERROR),
        ):
            if value not in choices:
                raise ValueError(f"data.{name} is {value!r}: give one of {', '.join(choices)}")
        if not 0 < self.memory_share <= 1:
            raise ValueError(
                f"data.memory_share is {self.memory_share}: give a fraction of memory above 0 and "
                "at most 1"
            )
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}: give 0 or more, or null")
        if self.needs_manifests and not self.manifests:
            raise ValueError(
                "data.manifests is empty: set it to a folder for the list of image files, such as "
                "store/manifests"
            )

    @property
    def needs_manifests(self) -> bool:
        return self.kind != "memory" or self.on_error == "skip"

    @property
    def processes(self) -> int:
        """The number of processes that decode."""
        if self.workers is not None:
            return self.workers
        return max(1, min(_MOST_WORKERS, (_cores() - 1) // _ranks_of_machine()))


def _ranks_of_machine() -> int:
    """The number of ranks on this machine; of several nodes without a launcher, of all nodes."""
    if local := os.environ.get("LOCAL_WORLD_SIZE"):
        # torchrun's.
        return max(1, int(local))
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    nodes = max(1, int(os.environ.get("SLURM_NNODES", "1")))
    return max(1, dist.get_world_size() // nodes)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory() -> int:
    """The memory of this machine in bytes, or the limit of its container.

    It does not depend on what is free now, so that the same study makes the same choice.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _LIMITS:
        try:
            total = min(total, int(file.read_text()))
        except (OSError, ValueError):
            # No container, or no limit ("max").
            continue
    return total
