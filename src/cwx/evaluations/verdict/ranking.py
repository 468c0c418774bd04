"""The statistics of the first expert's classes, ranked within the network or against a bank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.evaluations.outcome import Sources
from cwx.evaluations.verdict.statistics import Statistic
from cwx.functional.bank_comparison import BankComparison, compare_with_bank, within_network
from cwx.training.subject import Subject

# The part of the largest excess at which another class stands out as well.
_ALSO = 0.5


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How much the classes of a network stand out.

    Attributes:
        statistics: that give the values, by the name of the value; S names.
        values: of the network, by statistic and class ``[S, K]``.
        bank: of the bank's networks ``[m, S, K]``; ``None`` without a bank.
        comparison: with the bank; ``None`` without one.
        excess: of each class over the bank, or over the median class of the network, ``[S, K]``.
        label: the class that stands out most.
    """

    statistics: Mapping[str, Statistic]
    values: Tensor
    bank: Tensor | None
    comparison: BankComparison | None
    excess: Tensor
    label: int

    @property
    def names(self) -> Sequence[str]:
        """Of the values."""
        return list(self.statistics)

    @property
    def others(self) -> Sequence[int]:
        """The other classes of at least half the excess of `label`, by the deciding statistic.

        A backdoor with one target raises one class. Without a bank there are none.
        """
        if self.comparison is None:
            return []
        excess = self.excess[self.comparison.statistic]
        high = excess >= _ALSO * excess[self.label]
        high[self.label] = False
        order = excess.nan_to_num(-torch.inf).argsort(descending=True).tolist()
        return [label for label in order if high[label]] if excess[self.label] > 0 else []

    @property
    def order(self) -> Sequence[str]:
        """The names: that which decides, then those by which class `label` stands out most."""
        of_class = self.excess[:, self.label].nan_to_num(-torch.inf)
        indices = of_class.argsort(descending=True, stable=True).tolist()
        if self.comparison is not None:
            first = int(self.comparison.scores.nan_to_num(-torch.inf).argmax())
            indices = [first, *(index for index in indices if index != first)]
        return [self.names[index] for index in indices]


def rank_classes(
    statistics: Mapping[str, Statistic], subject: Subject, sources: Sources
) -> Ranking:
    """Measure the statistics of the first expert, and compare them with the bank if there is one.

    Args:
        statistics: of every class, by name.
    """
    by_name: dict[str, Statistic] = {}
    own: dict[str, Tensor] = {}
    for statistic in statistics.values():
        measured = statistic(subject, sources[statistic.source])
        own |= measured
        by_name |= dict.fromkeys(measured, statistic)
    values = torch.stack(list(own.values()))
    bank, comparison = None, None
    if subject.bank.statistics:
        bank = torch.stack([subject.bank.statistics[name] for name in own], dim=1)
        comparison = compare_with_bank(values, bank)
    excess = comparison.excess if comparison else within_network(values)
    largest = excess.nan_to_num(-torch.inf).amax(0)
    return Ranking(
        statistics=by_name,
        values=values,
        bank=bank,
        comparison=comparison,
        excess=excess,
        label=comparison.label if comparison else int(largest.argmax()),
    )
