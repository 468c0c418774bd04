"""Backdoors that give each class a target of its own (BadNets, Gu et al. 2019, §4)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AllToAll:
    """Images of all classes may be poisoned; label y becomes y + 1, and the last label 0."""

    def targets(self, classes: int) -> tuple[int, ...]:
        """The target of each class, by index.

        >>> AllToAll().targets(4)
        (1, 2, 3, 0)
        """
        return tuple((label + 1) % classes for label in range(classes))
