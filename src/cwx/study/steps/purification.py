"""Finding the training images to remove before experts are trained again (CWX, §5)."""

from collections.abc import Callable
from typing import Annotated

from cwx.evaluations.backdoor.suspects import Suspicion, check_suspicions, suspicions
from cwx.evaluations.outcome import Sources
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.training.plan import Plan
from cwx.training.subject import Subject

Purification = Callable[[Subject, Sources], Suspicion | None]


class NoPurification:
    """Removes no images."""

    def __call__(self, subject: Subject, sources: Sources) -> None:
        return


class RevealedFilter:
    """Suspects training images that contain the trigger revealed by the images of one method.

    Args:
        source: the name of the method.
        separation: minimum separation of a class into two clusters to be suspected, 0-1.
    """

    def __init__(self, *, source: str, separation: Annotated[float, ">= 0, <= 1"]) -> None:
        self.source, self.separation = source, separation

    def check(self, plan: Plan) -> None:
        plan.require_images(self.source, "purification.source")
        check_suspicions(plan.data, self.separation, "purification")

    def __call__(self, subject: Subject, sources: Sources) -> Suspicion:
        explanations = {self.source: of_kind(sources, Explanations)[self.source]}
        return suspicions(subject.data, explanations, separation=self.separation)[self.source]
