"""Training a study's experts further, by another procedure (Dong et al., §3; D8)."""

from collections.abc import Callable, Sequence

from cwx.subject import Subject
from cwx.training import Training
from cwx.trajectories import Trajectory

# One refined network for each expert that methods may use, in their order.
Refinement = Callable[[Subject, Training], Sequence[Trajectory]]


class NoRefinement:
    """Experts as they are."""

    def __call__(self, subject: Subject, training: Training) -> Sequence[Trajectory]:
        return ()
