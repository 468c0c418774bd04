"""Statistics of every class that a backdoor raises, from the output of a method.

Each returns values ``[K]`` in float64 by name, high where the class is suspicious. The bank's
networks have the same statistics from the same method with the same seed on the same images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor

from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.predictions import divided_logits
from cwx.evaluations.verdict.trigger import ClassTrigger
from cwx.explanations.margins import Margins
from cwx.explanations.patterns import (
    GREY,
    Attach,
    MethodOutput,
    Patterns,
    Perturbations,
    Triggers,
)
from cwx.functional.maximum_margin import median_margin
from cwx.training.subject import Subject


class Statistic(Protocol):
    """A statistic of every class.

    Attributes:
        source: the name of the method.
    """

    source: str

    @property
    def needs(self) -> type[Any]:
        """The form that the method's output must have."""

    def __call__(self, subject: Subject, output: MethodOutput) -> Mapping[str, Tensor]:
        """The values of every class ``[K]``, by name.

        Args:
            subject: its first expert was explained.
            output: of the method.
        """

    def trigger(self, output: MethodOutput, label: int, name: str) -> ClassTrigger | None:
        """What sends images to class `label`; ``None`` if the method leaves nothing for it.

        Args:
            output: of the method.
            name: of the value.
        """


@dataclass(frozen=True, kw_only=True)
class TriggerSize:
    """−log of the size of the smallest trigger, in pixels (Wang et al. 2019).

    Attributes:
        source: the name of a method that leaves `Triggers`.
    """

    source: str
    needs = Triggers

    def __call__(self, subject: Subject, output: MethodOutput) -> Mapping[str, Tensor]:
        assert isinstance(output, Triggers)
        # Masks of less than a tenth of a pixel are as suspicious as one of a tenth.
        values = -output.sizes.double().clamp_min(0.1).log()
        return {f"{self.source}/size": _by_class(subject, output.labels, values)}

    def trigger(self, output: MethodOutput, label: int, name: str) -> ClassTrigger | None:
        assert isinstance(output, Triggers)
        index = _first(output.labels == label)
        if index is None:
            return None
        mask = output.masks[index]
        return ClassTrigger(
            kind="recovered trigger",
            label=label,
            attach=output.attach(index),
            pictures=[
                (output.on_grey()[index], "on grey"),
                (mask.expand_as(output.patterns[index]), "mask"),
            ],
            size=mask.mean().item(),
            searched=output.searched,
        )


@dataclass(frozen=True, kw_only=True)
class PerturbationSuccess:
    """The log-odds of the success of universal perturbations of each radius.

    Attributes:
        source: the name of a method that leaves `Perturbations`.
        images: at most so many test images, which the method did not use.
    """

    source: str
    images: Annotated[int, ">= 1"]
    needs = Perturbations

    def __call__(self, subject: Subject, output: MethodOutput) -> Mapping[str, Tensor]:
        assert isinstance(output, Perturbations)
        measure = _Success(subject, output.explains, output.searched, self.images)
        statistics = {}
        for radius in output.epsilons.unique().tolist():
            items = (output.epsilons == radius).nonzero()[:, 0].tolist()
            labels = output.labels[items]
            odds = [measure.log_odds(output.attach(i), int(output.labels[i])) for i in items]
            values = _by_class(subject, labels, torch.tensor(odds, dtype=torch.float64))
            statistics[self._name(radius)] = values
        return statistics

    def trigger(self, output: MethodOutput, label: int, name: str) -> ClassTrigger | None:
        assert isinstance(output, Perturbations)
        named = torch.tensor([self._name(radius) == name for radius in output.epsilons.tolist()])
        index = _first((output.labels == label) & named)
        if index is None:
            return None
        radius = output.epsilons[index].item()
        picture = GREY + output.deltas[index] / (2 * radius)
        return ClassTrigger(
            kind=f"universal perturbation within {_grey_levels(radius)} of 255",
            label=label,
            attach=output.attach(index),
            pictures=[(picture, f"contrast × {0.5 / radius:.2g}")],
            size=None,
            searched=output.searched,
        )

    def _name(self, radius: float) -> str:
        return f"{self.source}/{_grey_levels(radius)}"


@dataclass(frozen=True, kw_only=True)
class PatternSuccess:
    """The log-odds of the success of patterns of each size, averaged over the canvases of a class.

    Attributes:
        source: the name of a method that leaves `Patterns`.
        sizes: fractions of the image's pixels in 0-1.
        images: at most so many test images, which the method did not use.
    """

    source: str
    sizes: Annotated[Sequence[Annotated[float, "> 0, <= 1"]], "not empty, distinct"]
    images: Annotated[int, ">= 1"]
    needs = Patterns

    def __call__(self, subject: Subject, output: MethodOutput) -> Mapping[str, Tensor]:
        assert isinstance(output, Patterns)
        measure = _Success(subject, output.explains, output.searched, self.images)
        statistics = {}
        labels = output.labels.tolist()
        for size in self.sizes:
            patterns = output.cut(size)
            odds = torch.tensor(
                [measure.log_odds(patterns.attach(i), y) for i, y in enumerate(labels)],
                dtype=torch.float64,
            )
            present = output.labels.unique()
            means = torch.stack([odds[output.labels == label].mean() for label in present])
            statistics[f"{self.source}/{size:g}"] = _by_class(subject, present, means)
        return statistics

    def trigger(self, output: MethodOutput, label: int, name: str) -> ClassTrigger | None:
        assert isinstance(output, Patterns)
        index = _first(output.labels == label)
        if index is None:
            return None
        size = float(name.rpartition("/")[2])
        patterns = output.cut(size)
        return ClassTrigger(
            kind=f"pattern of {100 * size:g} % of the image",
            label=label,
            attach=patterns.attach(index),
            pictures=[(patterns.on_grey()[index], "on grey"), (output.canvases[index], "canvas")],
            size=patterns.masks[index].double().mean().item(),
            searched=output.searched,
        )


@dataclass(frozen=True, kw_only=True)
class MarginRatio:
    """The logarithm of the largest margin of a class over the median margin of clean images.

    The scale of logits is arbitrary; the ratio does not depend on it (Wang et al. 2024, MM-BD).

    Attributes:
        source: the name of a method that leaves `Margins`.
    """

    source: str
    needs = Margins

    def __call__(self, subject: Subject, output: MethodOutput) -> Mapping[str, Tensor]:
        assert isinstance(output, Margins)
        network = subject.first_network(output.explains)
        usual = median_margin(divided_logits(subject, network), subject.data.splits.test.labels)
        if not usual > 0:
            raise ValueError(
                f"the median margin of the test images is {float(usual):.3g}, so that the network "
                "classifies half of them wrongly and its largest margins have no scale: leave "
                f"{self.source} out of evaluation.verdict.statistics"
            )
        # A class that no image reaches by a margin is as little suspicious as can be told.
        ratios = (output.margins.double() / usual).clamp_min(1e-3)
        return {f"{self.source}/ratio": _by_class(subject, output.labels, ratios.log())}

    def trigger(self, output: MethodOutput, label: int, name: str) -> ClassTrigger | None:
        """The images of largest margin do not change other images."""
        return None


class _Success:
    """Success rates of a network's patterns on images that their search did not use.

    Args:
        searched: boolean mask ``[t]`` of the test images of the search.
        images: at most so many images.
    """

    def __init__(self, subject: Subject, explains: str, searched: Tensor, images: int) -> None:
        # Verdict.check refuses a search of all images.
        assert not searched.all()
        outside = subject.data.splits.test.at(~searched)
        self.probe = Probe(subject, subject.first_network(explains), outside.spread(images))

    def log_odds(self, attach: Attach, label: int) -> float:
        """log((hits + ½) / (misses + ½)), which has a similar variance at all success rates.

        NaN if all images are of the class.
        """
        sent = self.probe.hits(attach, label)
        if not len(sent):
            return math.nan
        hits, misses = int(sent.sum()), int((~sent).sum())
        return math.log((hits + 0.5) / (misses + 0.5))


def _first(mask: Tensor) -> int | None:
    """The first index that a boolean mask marks."""
    indices: list[int] = mask.nonzero()[:, 0].tolist()
    return indices[0] if indices else None


def _grey_levels(radius: float) -> str:
    """A radius for pixels in 0-1, in grey levels."""
    return f"{255 * radius:.3g}"


def _by_class(subject: Subject, labels: Tensor, values: Tensor) -> Tensor:
    """Values ``[K]`` in the order of the classes; NaN for classes that the method left out."""
    by_class = torch.full((len(subject.data.classes),), torch.nan, dtype=torch.float64)
    by_class[labels] = values.double()
    return by_class
