"""Who makes adversarial images for a study to look at its networks with (Dong et al., §2.1; D1)."""

from collections.abc import Callable

from cwx.adversarial import Adversarial
from cwx.subject import Subject
from cwx.training import Training

Adversary = Callable[[Subject, Training], Adversarial | None]


class NoAdversary:
    """Real images alone."""

    def __call__(self, subject: Subject, training: Training) -> None:
        return
