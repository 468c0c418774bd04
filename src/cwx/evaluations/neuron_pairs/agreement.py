"""Agreement of LC and of simple statistics with volunteers (Dong et al., Appendix B)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, median

from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from cwx.storage.neuron_pairs import LC, Pair, PairStudy
from cwx.storage.pair_answers import CANNOT_SAY, LEFT, RIGHT, Answers

# Parts of the pairs by the difference of LC, from the smallest.
TERTILES = 3


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """A number of successes among a number of independent trials."""

    successes: int
    trials: int

    @property
    def value(self) -> float | None:
        """Their fraction; ``None`` without trials."""
        return self.successes / self.trials if self.trials else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The Wilson interval of 95 %; ``None`` without trials."""
        if not self.trials:
            return None
        interval = binomtest(self.successes, self.trials).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True, kw_only=True)
class VolunteerAgreement:
    """What one volunteer's answers say about LC; repeated pairs count in `consistency` alone.

    Attributes:
        volunteer: the name.
        answered: pairs that the volunteer has answered, without repetitions.
        cannot_say: those of them that were answered by "cannot say".
        ties: those of the others whose neurons have equal LC.
        agreement: of LC with the remaining answers: LC of the chosen neuron is the higher.
        tertiles: the same by tertile of the difference of LC over the pairs of the study, the
            smallest first.
        consistency: repeated pairs of which the volunteer chose the same neuron both times, among
            those where both answers are a side.
        seconds: the median time of an answer, without repetitions.
    """

    volunteer: str
    answered: int
    cannot_say: int
    ties: int
    agreement: Proportion
    tertiles: tuple[Proportion, ...]
    consistency: Proportion
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StatisticAgreement:
    """A statistic of neurons beside LC, over the answers of all volunteers.

    Attributes:
        name: of the statistic.
        ties: answers about pairs that the statistic does not order.
        agreement: of the statistic with the other answers.
        lc: agreement of LC with the same answers, without those whose neurons have equal LC.
        disagreement: LC's successes among the answers about which the two disagree.
    """

    name: str
    ties: int
    agreement: Proportion
    lc: Proportion
    disagreement: Proportion


def volunteer_agreement(answers: Answers, study: PairStudy) -> VolunteerAgreement:
    """The agreement of LC with one volunteer."""
    choices = _choices(answers, study)
    answered = [number for number in answers.answers if study.pairs[number].repeats is None]
    parts = _tertiles(study)
    ordered = {pair: side for pair, side in choices.items() if pair in parts}
    return VolunteerAgreement(
        volunteer=answers.volunteer,
        answered=len(answered),
        cannot_say=len(answered) - len(choices),
        ties=len(choices) - len(ordered),
        agreement=_agreement(ordered, study, LC),
        tertiles=tuple(
            _agreement({p: s for p, s in ordered.items() if parts[p] == part}, study, LC)
            for part in range(TERTILES)
        ),
        consistency=_consistency(answers, study),
        seconds=_median_seconds(answers, study),
    )


def _median_seconds(answers: Answers, study: PairStudy) -> float:
    """The median time of an answer, without repetitions; NaN without answers."""
    seconds = [
        seconds
        for number, seconds in zip(answers.answers, answers.seconds, strict=True)
        if study.pairs[number].repeats is None
    ]
    return median(seconds) if seconds else math.nan


def statistic_agreement(
    name: str, volunteers: Sequence[Answers], study: PairStudy
) -> StatisticAgreement:
    """The agreement of a statistic with all volunteers, and its comparison with LC."""
    choices = [(p, s) for answers in volunteers for p, s in _choices(answers, study).items()]
    ordered = [(pair, side) for pair, side in choices if _higher(study, pair, name)]
    both = [(pair, side) for pair, side in ordered if _higher(study, pair, LC)]
    differing = [(p, s) for p, s in both if _higher(study, p, name) != _higher(study, p, LC)]
    return StatisticAgreement(
        name=name,
        ties=len(choices) - len(ordered),
        agreement=_proportion(ordered, study, name),
        lc=_proportion(both, study, LC),
        disagreement=_proportion(differing, study, LC),
    )


def mean_kappa(volunteers: Sequence[Answers], study: PairStudy) -> float | None:
    """Agreement between volunteers: mean of Cohen's kappa over pairs of volunteers (Light 1971).

    Each kappa is over the pairs for which both chose a side. It is 1 for equal answers and 0 for
    the agreement of independent ones.

    Returns:
        ``None`` if no two volunteers have pairs in common with answers for both sides.
    """
    choices = [_choices(answers, study) for answers in volunteers]
    kappas = [_kappa(first, second) for first, second in combinations(choices, 2)]
    known = [kappa for kappa in kappas if kappa is not None]
    return mean(known) if known else None


def _kappa(first: Mapping[int, str], second: Mapping[int, str]) -> float | None:
    common = sorted(first.keys() & second.keys())
    sides = [[choices[pair] for pair in common] for choices in (first, second)]
    # Without both sides, the agreement by chance is 1, and kappa is not defined.
    if len({*sides[0], *sides[1]}) < 2:
        return None
    return float(cohen_kappa_score(*sides))


def _choices(answers: Answers, study: PairStudy) -> dict[int, str]:
    """The sides that a volunteer chose, by pair, without repetitions."""
    return {
        pair: answer
        for pair, answer in answers.answers.items()
        if answer != CANNOT_SAY and study.pairs[pair].repeats is None
    }


def _higher(study: PairStudy, pair: int, statistic: str) -> str | None:
    """The side of the higher statistic; ``None`` for equal ones."""
    difference = study.difference(study.pairs[pair], statistic)
    if difference == 0:
        return None
    return RIGHT if difference > 0 else LEFT


def _agreement(choices: Mapping[int, str], study: PairStudy, statistic: str) -> Proportion:
    return _proportion(choices.items(), study, statistic)


def _proportion(choices: Iterable[tuple[int, str]], study: PairStudy, statistic: str) -> Proportion:
    agrees = [_higher(study, pair, statistic) == side for pair, side in choices]
    return Proportion(successes=sum(agrees), trials=len(agrees))


def _tertiles(study: PairStudy) -> dict[int, int]:
    """The tertile of the difference of LC, 0 for the smallest, of each pair that LC orders."""

    def difference(pair: Pair) -> float:
        return abs(study.difference(pair))

    pairs = [p for p in study.pairs.values() if p.repeats is None and difference(p) > 0]
    ordered = sorted(pairs, key=difference)
    return {pair.number: rank * TERTILES // len(pairs) for rank, pair in enumerate(ordered)}


def _consistency(answers: Answers, study: PairStudy) -> Proportion:
    same = []
    for number, answer in answers.answers.items():
        first = study.pairs[number].repeats
        earlier = answers.answers.get(first) if first is not None else None
        if earlier is not None and CANNOT_SAY not in (answer, earlier):
            # The sides are swapped.
            same.append(answer != earlier)
    return Proportion(successes=sum(same), trials=len(same))
