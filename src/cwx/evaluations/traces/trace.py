"""One prediction and the neurons that decided it (Dong et al., §4; D9)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cwx.evaluations.outcome import Row
from cwx.evaluations.traces.inputs import Pictured
from cwx.functional.class_similarity import squared_norm

# How many classes of a neuron the table names.
NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """A channel, what the prediction is without it, and what it fires for.

    Attributes:
        difference: PD of the image (Eq 12).
        without: probabilities ``[classes]`` once it is 0.
        strongest: the test images of highest activation ``[k]``, falling.
        fractions: of the classes among them, ``[classes]``.
    """

    channel: int
    difference: float
    without: Tensor
    strongest: Tensor
    fractions: Tensor


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What a network makes of an image, and the channels that decided most, the first foremost.

    Attributes:
        network: its name in the study.
        layer: the name of the channels' layer.
        probabilities: ``[classes]``.
        neurons: what it rests on; none if no channel makes a difference.
    """

    pictured: Pictured
    network: str
    layer: str
    probabilities: Tensor
    neurons: Sequence[Neuron]

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())

    def speaks(self, correlation: Tensor) -> list[str]:
        """What each neuron says of the predicted class (`speaks_for`)."""
        return [speaks_for(self.predicted, n.fractions, correlation) for n in self.neurons]

    def evidence(self, correlation: Tensor) -> str:
        """``consistent`` if all neurons speak for the predicted class, ``contradictory`` if any
        speaks against it, else ``inconclusive``."""
        found = self.speaks(correlation)
        if "against" in found:
            return "contradictory"
        return "consistent" if {*found} == {"for"} else "inconclusive"


def speaks_for(label: int, fractions: Tensor, correlation: Tensor) -> str:
    """What a neuron that fires for classes by these shares p says of a class k.

    s = C p is how close each class is to what the neuron fires for, 1 where it fires for nothing
    else. It says ``nothing`` if it fires for no classes in particular: none is as close as half
    way, on a logarithmic scale, from the average class to 1. Else it is

    - ``against`` k if k is no closer than the average class,
    - ``for`` k if k is at least half as close as the closest class,
    - ``weak`` in between.

    Args:
        label: k.
        fractions: p, ``[classes]``, of sum 1.
        correlation: C, ``[classes, classes]``.
    """
    close = correlation @ fractions.to(correlation)
    average, closest, own = close.mean(), close.max(), close[label]
    # Equal numbers may differ by rounding.
    nearly = 1 + 1e-9
    if closest * nearly < math.sqrt(average):
        return "nothing"
    if own <= average * nearly:
        return "against"
    return "for" if own * nearly >= closest / 2 else "weak"


def rows_of(number: int, trace: Trace, classes: Sequence[str], correlation: Tensor) -> list[Row]:
    """A row a neuron for a table; one whose neuron is empty where no channel matters."""
    pictured, predicted = trace.pictured, trace.predicted
    head: Row = {
        "trace": number,
        "network": trace.network,
        "kind": pictured.kind,
        "image": pictured.name,
        "label_class": _name(pictured.label, classes),
        "target_class": _name(pictured.target, classes),
        "predicted_class": classes[predicted],
        "probability": trace.probabilities[predicted].item(),
        "evidence": trace.evidence(correlation),
        "layer": trace.layer,
    }
    if not trace.neurons:
        return [{**head, **dict.fromkeys(NEURON, "")}]
    return [
        {**head, **dict(zip(NEURON, _cells(neuron, predicted, classes, correlation), strict=True))}
        for neuron in trace.neurons
    ]


# The last columns of a row: classes by how many of the strongest images are theirs.
NEURON = (
    "channel", "difference", "without_class", "without_probability", "speaks", "lc", "strongest",
    "first_class", "first_images", "second_class", "second_images", "third_class", "third_images",
)  # fmt: skip


def _cells(
    neuron: Neuron, predicted: int, classes: Sequence[str], correlation: Tensor
) -> list[str | int | float]:
    """The values of `NEURON`."""
    kept = len(neuron.strongest)
    fractions, order = neuron.fractions.sort(descending=True, stable=True)
    named = [
        cell
        for fraction, label in zip(fractions[:NAMED].tolist(), order[:NAMED].tolist(), strict=True)
        for cell in ((classes[label], round(fraction * kept)) if fraction else ("", ""))
    ]
    return [
        neuron.channel,
        neuron.difference,
        classes[int(neuron.without.argmax())],
        neuron.without[predicted].item(),
        speaks_for(predicted, neuron.fractions, correlation),
        squared_norm(neuron.fractions, correlation).item(),
        kept,
        *named,
        *[""] * (2 * NAMED - len(named)),
    ]


def _name(label: int | None, classes: Sequence[str]) -> str:
    return "" if label is None else classes[label]
