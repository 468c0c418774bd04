"""Fine-tuning a study's experts with another recipe (Dong et al., §3)."""

from collections.abc import Callable, Sequence
from typing import Annotated

from cwx.storage.trajectories import Trajectory
from cwx.training.plan import Plan
from cwx.training.provider import Training, check_recipe
from cwx.training.stages import Factory
from cwx.training.subject import Subject

# Returns one fine-tuned network per expert in `Subject.trajectories`, in the same order.
FineTuning = Callable[[Subject, Training], Sequence[Trajectory]]


class NoFineTuning:
    """Does not fine-tune."""

    def __call__(self, subject: Subject, training: Training) -> Sequence[Trajectory]:
        return ()


class FineTune:
    """Fine-tunes every expert, from its state at the epoch that the study explains.

    Args:
        recipe: the training recipe of the fine-tuning.
        seed: of its batches, augmentation and attack targets; the same for every expert.
    """

    def __init__(self, *, recipe: Factory, seed: Annotated[int, ">= 0, < 2**63"]) -> None:
        self.recipe, self.seed = recipe, seed

    def check(self, plan: Plan) -> None:
        if not len(plan.data.splits.train):
            raise ValueError(
                "fine-tuning needs training images, but the data have none: choose data with "
                "training images, or fine_tuning=none"
            )
        try:
            check_recipe(self.recipe, {"network": plan.networks["network"]}, plan.data)
        except ValueError as error:
            raise ValueError(f"in fine_tuning.recipe: {error}") from error

    def __call__(self, subject: Subject, training: Training) -> Sequence[Trajectory]:
        """The fine-tuned networks, read from the store or trained.

        Raises:
            ValueError: the states of an expert are incomplete, for example without running
                statistics.
        """
        settings = training.configuration["fine_tuning"]["recipe"]
        return training.with_recipe(self.recipe, settings, part="fine_tuning").fine_tuned(
            "fine-tuned",
            subject.trajectories,
            epoch=subject.epoch,
            seed=self.seed,
            data=subject.data,
        )
