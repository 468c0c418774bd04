"""Experts that train only for the epochs that CWX uses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self


@dataclass(frozen=True, kw_only=True)
class EarlyExperts:
    """Experts whose training stops early.

    Attributes:
        seeds: of their weights and their training.
        epochs: the number of epochs to train; at least the last epoch that methods use.
        held_out: of experts that no method uses, for evaluation only.
    """

    seeds: Annotated[Sequence[Annotated[int, ">= 0, < 2**63"]], "distinct"]
    epochs: Annotated[int, ">= 0"]
    held_out: Annotated[Sequence[Annotated[int, ">= 0, < 2**63"]], "distinct"] = ()

    def without_seeds(self) -> Self:
        """The same settings, with no expert to train."""
        return replace(self, seeds=[], held_out=[])
