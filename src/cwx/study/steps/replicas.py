"""The replicas of held-out experts that evaluations compare with."""

from collections.abc import Iterable, Mapping

from cwx.evaluations.outcome import NeedsReplicas
from cwx.storage.trajectories import Trajectory
from cwx.training.provider import Training
from cwx.training.replicas import train_replicas
from cwx.training.subject import Subject


def replicas_for(
    evaluations: Iterable[object], subject: Subject, training: Training
) -> Mapping[tuple[str, int], Trajectory]:
    """The replicas that `evaluations` need, read from the store or trained; see `Subject`."""
    replicas: dict[tuple[str, int], Trajectory] = {}
    for evaluation in evaluations:
        if isinstance(evaluation, NeedsReplicas):
            replicas |= train_replicas(
                training,
                [*subject.held_out, *subject.early_held_out],
                starts=evaluation.replica_starts(),
                span=evaluation.span,
                data=subject.data,
            )
    return replicas
