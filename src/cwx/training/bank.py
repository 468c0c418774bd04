"""The bank: clean networks that a network of unknown history is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from torch import Tensor

from cwx.storage.trajectories import Trajectory


@dataclass(frozen=True)
class BankSource:
    """Where the networks of a bank come from.

    Attributes:
        seeds: of networks trained on the images before corruption, with the recipe of the study.
        checkpoints: clean networks of the explained architecture, trained elsewhere: files.
    """

    seeds: Annotated[Sequence[Annotated[int, ">= 0, < 2**63"]], "distinct"] = ()
    checkpoints: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.seeds) + len(self.checkpoints)


@dataclass(frozen=True, kw_only=True)
class Bank:
    """The networks of a bank and their statistics.

    Attributes:
        trajectories: of the networks.
        accuracies: of each network on the test images, 0-1.
        statistics: by name, of each network and class ``[m, K]``; empty until measured.
    """

    trajectories: Sequence[Trajectory] = ()
    accuracies: Sequence[float] = ()
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.trajectories)
