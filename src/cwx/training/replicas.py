"""Replicas: experts trained again from one of their states with other random numbers."""

import logging
from collections.abc import Sequence

from cwx.data.datamodule import ImageData
from cwx.storage.trajectories import Trajectory
from cwx.training.provider import Training

log = logging.getLogger(__name__)


def train_replicas(
    training: Training,
    trajectories: Sequence[Trajectory],
    *,
    starts: Sequence[int],
    span: int,
    data: ImageData,
) -> dict[tuple[str, int], Trajectory]:
    """Networks trained again from states of `trajectories`, read from the store or trained.

    Each trains from θ_k to epoch k + `span` with the recipe of the trajectory and the random
    numbers of the next seed. The state of the optimiser at θ_k is not recorded: momentum starts
    from 0.

    Args:
        trajectories: trained with the recipe of `training` on `data`.
        starts: the epochs k.

    Returns:
        By the name of the trajectory's folder and k. Empty for a learning rate schedule that
        depends on the losses, whose state at θ_k is not recorded.
    """
    schedule = training.configuration["recipe"].get("schedule") or {}
    if str(schedule.get("_target_", "")).endswith("ReduceLROnPlateau"):
        log.info("no replicas: the learning rate of each epoch is not recorded")
        return {}
    replicas: dict[tuple[str, int], Trajectory] = {}
    # Networks trained in parallel have a common learning rate schedule.
    for start in starts:
        seeds = [int(trajectory.identity["seed"]) for trajectory in trajectories]
        ends = training.continued(
            {f"replica-{s}-{start}": (t, start) for s, t in zip(seeds, trajectories, strict=True)},
            seeds=[seed + 1 for seed in seeds],
            data=data,
            role="replica_of",
            epochs=span,
            first_epoch=start,
        )
        names = [trajectory.path.name for trajectory in trajectories]
        replicas |= {(name, start): end for name, end in zip(names, ends, strict=True)}
    return replicas
