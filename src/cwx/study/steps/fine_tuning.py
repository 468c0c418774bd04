"""Training a study's experts further, by another procedure (Dong et al., §3; D8)."""

from collections.abc import Callable, Sequence

from cwx.storage.trajectories import Trajectory
from cwx.training.plan import Plan
from cwx.training.provider import Training, check_procedure
from cwx.training.stages import Factory
from cwx.training.subject import Subject

# One refined network for each expert that methods may use, in their order.
Refinement = Callable[[Subject, Training], Sequence[Trajectory]]


class NoRefinement:
    """Experts as they are."""

    def __call__(self, subject: Subject, training: Training) -> Sequence[Trajectory]:
        return ()


class Refined:
    """Trains every expert further, from the state in which the study shows it.

    Args:
        procedure: of this training.
        seed: of its batches, augmentation and targets, the same for every expert.
    """

    def __init__(self, *, procedure: Factory, seed: int) -> None:
        self.procedure, self.seed = procedure, seed

    def check(self, plan: Plan) -> None:
        if not len(plan.data.splits.train):
            raise ValueError(
                "refinement trains the experts further, and the data have no training images: "
                "choose data that have, or refinement=none"
            )
        try:
            check_procedure(self.procedure, {"network": plan.networks["network"]}, plan.data)
        except ValueError as error:
            raise ValueError(f"of refinement, {error}") from error

    def __call__(self, subject: Subject, training: Training) -> Sequence[Trajectory]:
        """The refined, found in the store or trained.

        Raises:
            ValueError: an expert's states lack what a network needs to go on, such as running
                statistics.
        """
        settings = training.configuration["refinement"]["procedure"]
        return training.by(self.procedure, settings).refined(
            "refined",
            subject.trajectories,
            epoch=subject.epoch,
            seed=self.seed,
            data=subject.data,
        )
