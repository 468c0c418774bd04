"""The environments of parallel jobs, with their fractions of the machine's cores and GPUs."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

DEVICES = "CUDA_VISIBLE_DEVICES"
# Device files of GPU drivers: NVIDIA, AMD, WSL.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
THREADS = "OMP_NUM_THREADS"
# Variables that a launcher of ranks or a W&B run leaves for its children; a job must join neither.
_LEAKING = frozenset(
    {"LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"}
    | {"WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"}
    | {"MASTER_ADDR", "MASTER_PORT"}
    | {"WANDB_RUN_ID", "WANDB_RESUME", "WANDB_SERVICE", "WANDB_SWEEP_ID"}
    # In a Slurm allocation, Lightning would treat every job as a rank of the scheduler, and the
    # ranks of all jobs would use one port.
    | {"SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID"}
    | {"LSB_DJOB_RANKFILE", "JSM_NAMESPACE_RANK", "STANDALONE_PORT"}
    # submitit's signal handler would requeue a job that is not its own.
    | {"SUBMITIT_EXECUTOR"}
)
_LEAKING_PREFIXES = ("PL_", "TORCHELASTIC_", "CWX_")


def without_rank_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables without those of another process group or W&B run."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _LEAKING and not name.startswith(_LEAKING_PREFIXES)
    }


def job_environments(
    inherited: Mapping[str, str],
    *,
    n_jobs: int,
    gpus_per_job: int | None,
    gpus: Sequence[str],
    cores: int,
) -> list[dict[str, str]]:
    """The environments of `n_jobs` parallel processes.

    Args:
        gpus_per_job: the number of GPUs of each job; ``None`` divides all GPUs evenly, and jobs
            share a GPU if there are fewer GPUs than jobs.
        gpus: the names of all GPUs, as in ``CUDA_VISIBLE_DEVICES``.
        cores: the number of cores, divided evenly unless ``OMP_NUM_THREADS`` is set.

    Raises:
        ValueError: the jobs need more GPUs than there are.
    """
    clean = without_rank_variables(inherited)
    if n_jobs > 1:
        clean.setdefault(THREADS, str(max(1, cores // n_jobs)))
    if gpus_per_job is None:
        if n_jobs == 1 or not gpus:
            return [clean] * n_jobs
        if len(gpus) < n_jobs:
            return [{**clean, DEVICES: gpus[job % len(gpus)]} for job in range(n_jobs)]
    # The same number for all, so that all jobs divide their batches alike.
    count = len(gpus) // n_jobs if gpus_per_job is None else gpus_per_job
    if count * n_jobs > len(gpus):
        raise ValueError(
            f"hydra.launcher.gpus_per_job is {count}, for {n_jobs} jobs at a time, but the number "
            f"of GPUs is {len(gpus)}: lower it or hydra.launcher.n_jobs"
        )
    return [
        {**clean, DEVICES: ",".join(gpus[job * count : (job + 1) * count])} for job in range(n_jobs)
    ]


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a process with this environment sees.

    Asks torch, in a subprocess: only torch knows which GPUs it would use.
    """
    if (visible := environment.get(DEVICES)) is not None:
        names = [name.strip() for name in visible.split(",")]
        return [name for name in names if name not in ("", "-1")]
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return []
    count = "import torch; print(torch.cuda.device_count())"
    process = subprocess.run(
        [sys.executable, "-c", count], env=environment, capture_output=True, text=True, check=False
    )
    words = process.stdout.split()
    return [str(index) for index in range(int(words[-1]))] if words else []


def is_scheduler_rank(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler has started this process as one of several ranks."""
    tasks = environment.get("SLURM_NTASKS", "1")
    return tasks.isdecimal() and int(tasks) > 1


def rank(environment: Mapping[str, str]) -> int:
    """The rank of this process among those that a scheduler started for a job; else 0."""
    return int(environment.get("SLURM_PROCID", "0")) if is_scheduler_rank(environment) else 0


def is_rank(environment: Mapping[str, str]) -> bool:
    """Whether this process is a rank of a run, whose directory exists already."""
    return is_scheduler_rank(environment) or "LOCAL_RANK" in environment


def is_local_rank(environment: Mapping[str, str]) -> bool:
    """Whether Lightning started this process as a further rank of its parent process."""
    launched = (
        environment.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in environment
    )
    return launched and not is_scheduler_rank(environment)
