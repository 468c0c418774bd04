"""Training a study's experts further, by another recipe (Dong et al., §3; D8)."""

from collections.abc import Callable, Sequence

from cwx.storage.trajectories import Trajectory
from cwx.training.plan import Plan
from cwx.training.provider import Training, check_recipe
from cwx.training.stages import Factory
from cwx.training.subject import Subject

# One fine-tuned network for each expert that methods may use, in their order.
FineTuning = Callable[[Subject, Training], Sequence[Trajectory]]


class NoFineTuning:
    """Experts as they are."""

    def __call__(self, subject: Subject, training: Training) -> Sequence[Trajectory]:
        return ()


class FineTune:
    """Trains every expert further, from the state in which the study shows it.

    Args:
        recipe: of this training.
        seed: of its batches, augmentation and targets, the same for every expert.
    """

    def __init__(self, *, recipe: Factory, seed: int) -> None:
        self.recipe, self.seed = recipe, seed

    def check(self, plan: Plan) -> None:
        if not len(plan.data.splits.train):
            raise ValueError(
                "fine-tuning trains the experts further, and the data have no training images: "
                "choose data that have, or fine_tuning=none"
            )
        try:
            check_recipe(self.recipe, {"network": plan.networks["network"]}, plan.data)
        except ValueError as error:
            raise ValueError(f"of fine-tuning, {error}") from error

    def __call__(self, subject: Subject, training: Training) -> Sequence[Trajectory]:
        """The fine-tuned, found in the store or trained.

        Raises:
            ValueError: an expert's states lack what a network needs to go on, such as running
                statistics.
        """
        settings = training.configuration["fine_tuning"]["recipe"]
        return training.by(self.recipe, settings).fine_tuned(
            "fine-tuned",
            subject.trajectories,
            epoch=subject.epoch,
            seed=self.seed,
            data=subject.data,
        )
