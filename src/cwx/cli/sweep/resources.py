"""The environment of processes that run side by side: clean, each with its share of the machine."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

DEVICES = "CUDA_VISIBLE_DEVICES"
# One of them is there if a driver for GPUs is: NVIDIA's, AMD's, that of Windows for its Linux.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
THREADS = "OMP_NUM_THREADS"
# What a launcher of ranks, or a W&B run, leaves for its children: a job must join neither.
_LEAKING = frozenset(
    {"LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"}
    | {"WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"}
    | {"MASTER_ADDR", "MASTER_PORT"}
    | {"WANDB_RUN_ID", "WANDB_RESUME", "WANDB_SERVICE", "WANDB_SWEEP_ID"}
    # By which Lightning would take a job for a rank of the scheduler's, as it is if a sweep runs in
    # an allocation, and all jobs' ranks would meet at one port.
    | {"SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID"}
    | {"LSB_DJOB_RANKFILE", "JSM_NAMESPACE_RANK", "STANDALONE_PORT"}
    # A signal's handler of submitit's would put a job back that is not its own.
    | {"SUBMITIT_EXECUTOR"}
)
_LEAKING_PREFIXES = ("PL_", "TORCHELASTIC_", "CWX_")


def cleaned(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what would make a process a rank of somebody else's group, or part of their run."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _LEAKING and not name.startswith(_LEAKING_PREFIXES)
    }


def shared(
    inherited: Mapping[str, str],
    *,
    n_jobs: int,
    gpus_per_job: int | None,
    gpus: Sequence[str],
    cores: int,
) -> list[dict[str, str]]:
    """The environment of each of `n_jobs` processes that run side by side.

    Args:
        gpus_per_job: that each of them sees; ``None`` divides all, and lets jobs share one where
            there are fewer GPUs than jobs.
        gpus: names of those that there are, as ``CUDA_VISIBLE_DEVICES`` takes them.
        cores: that there are; they are divided unless ``OMP_NUM_THREADS`` is set already.

    Raises:
        ValueError: more GPUs are asked for than there are.
    """
    clean = cleaned(inherited)
    if n_jobs > 1:
        clean.setdefault(THREADS, str(max(1, cores // n_jobs)))
    if gpus_per_job is None:
        if n_jobs == 1 or not gpus:
            return [clean] * n_jobs
        if len(gpus) < n_jobs:
            return [{**clean, DEVICES: gpus[job % len(gpus)]} for job in range(n_jobs)]
    # As many for all, so that no job cuts its batches in another way than its neighbours.
    each = len(gpus) // n_jobs if gpus_per_job is None else gpus_per_job
    if each * n_jobs > len(gpus):
        raise ValueError(
            f"hydra.launcher.gpus_per_job is {each}, for {n_jobs} jobs at a time, but the number "
            f"of GPUs is {len(gpus)}: lower it or hydra.launcher.n_jobs"
        )
    return [
        {**clean, DEVICES: ",".join(gpus[job * each : (job + 1) * each])} for job in range(n_jobs)
    ]


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a process with this environment sees.

    Torch is asked, in a process of its own, for it alone knows which of them it would use.
    """
    if (chosen := environment.get(DEVICES)) is not None:
        names = [name.strip() for name in chosen.split(",")]
        return [name for name in names if name not in ("", "-1")]
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return []
    count = "import torch; print(torch.cuda.device_count())"
    asked = subprocess.run(
        [sys.executable, "-c", count], env=environment, capture_output=True, text=True, check=False
    )
    words = asked.stdout.split()
    return [str(index) for index in range(int(words[-1]))] if words else []


def ranked(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler has started this process as one of several ranks."""
    tasks = environment.get("SLURM_NTASKS", "1")
    return tasks.isdecimal() and int(tasks) > 1


def rank(environment: Mapping[str, str]) -> int:
    """The number of this process among those that a scheduler has started for a job."""
    return int(environment.get("SLURM_PROCID", "0")) if ranked(environment) else 0


def is_rank(environment: Mapping[str, str]) -> bool:
    """Whether this process is one of several of a run, which has its folder already."""
    return ranked(environment) or "LOCAL_RANK" in environment
