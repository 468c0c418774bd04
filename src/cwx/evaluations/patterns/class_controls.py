"""The success rates of the pattern of a class and of its controls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from cwx.evaluations.outcome import Row
from cwx.evaluations.patterns.controls_figure import (
    EQUAL_CHOICE,
    GAIN,
    NONE,
    OTHER,
    PATTERN,
    RANDOM,
    SHUFFLED,
)
from cwx.functional.spread import population_std


@dataclass(frozen=True, kw_only=True)
class ClassControls:
    """The success rates of the pattern of a class, in 0-1; NaN if no image is outside D_n.

    Attributes:
        size: fraction of the image's pixels.
        name: of the class.
        pattern: with the pattern.
        equal_choice: with the pattern that is chosen among as many canvases as the control searches
            have, the mean over all such choices; None if the study has no control searches.
        no_pattern: without one.
        random: with each random mask.
        other: with the pattern's mask on each canvas of another class.
        shuffled: with the pattern searched on canvases of another class; NaN if the class has
            none, None if the study has none.
    """

    size: float
    name: str
    pattern: float
    no_pattern: float
    random: Sequence[float]
    other: Sequence[float]
    equal_choice: float | None = None
    shuffled: float | None = None

    @property
    def gain(self) -> float:
        """The success rate of the pattern less that of the strongest control of the class.

        Less that of a search, the pattern is chosen among as many canvases as the search has.
        """
        controls = [fmean(draws) for draws in (self.random, self.other) if draws]
        gain = self.pattern - max([*controls, self.no_pattern])
        if self.shuffled is None or math.isnan(self.shuffled):
            return gain
        return min(gain, self.compared - self.shuffled)

    @property
    def compared(self) -> float:
        """The success rate that is compared with those of control searches."""
        return self.pattern if self.equal_choice is None else self.equal_choice

    @property
    def is_measured(self) -> bool:
        """Whether there are images outside D_n."""
        return not math.isnan(self.pattern)

    @property
    def row(self) -> Row:
        """The row of the table, whose cells are empty for a class without images outside D_n."""
        rates = {
            name: "" if math.isnan(rate) and not self.is_measured else rate
            for name, rate in self._rates.items()
        }
        return {"size": f"{self.size:g}", "class": self.name, **rates}

    @property
    def _rates(self) -> dict[str, float]:
        return {
            PATTERN: self.pattern,
            **({} if self.equal_choice is None else {EQUAL_CHOICE: self.equal_choice}),
            RANDOM: fmean(self.random) if self.random else math.nan,
            f"{RANDOM}_std": population_std(self.random),
            OTHER: fmean(self.other) if self.other else math.nan,
            f"{OTHER}_std": population_std(self.other),
            NONE: self.no_pattern,
            GAIN: self.gain,
            **({} if self.shuffled is None else {SHUFFLED: self.shuffled}),
        }
