"""A prediction and its most influential neurons (Dong et al., §4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cwx.evaluations.outcome import Row
from cwx.evaluations.traces.inputs import TraceImage
from cwx.functional.class_similarity import squared_norm

# Number of classes of a neuron in the table.
CLASSES_IN_TABLE = 3


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """A channel, the prediction without it, and its top test images.

    Attributes:
        channel: its index.
        difference: prediction difference PD of the image (Eq 12).
        without: probabilities ``[classes]`` without the channel.
        contributions: to the logits ``[classes]``: with the channel minus without it.
        strongest: test images of highest activation, at most k, in descending order; none if the
            channel fires on no image more than on others.
        fractions: p, fractions of the classes among them, ``[classes]``; 0 without images.
    """

    channel: int
    difference: float
    without: Tensor
    contributions: Tensor
    strongest: Tensor
    fractions: Tensor


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The prediction of a network for an image, and the channels of highest PD.

    Attributes:
        image: the image.
        network: its name in the study.
        layer: the name of the channels' layer.
        probabilities: ``[classes]``.
        neurons: in descending order of PD; empty if no channel has an influence.
        ablation: how channels are removed: ``zero``, ``mean`` or ``resample``.
        flip: the number of channels, removed greedily, without which the prediction is another;
            ``None`` if it is the same without `removed`.
        removed: the number of channels after which the search stops.
    """

    image: TraceImage
    network: str
    layer: str
    probabilities: Tensor
    neurons: Sequence[Neuron]
    ablation: str
    flip: int | None
    removed: int

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())

    def neuron_evidence(self, correlation: Tensor) -> list[str]:
        """The evidence of each neuron for the predicted class (`class_evidence`)."""
        return [class_evidence(self.predicted, n.fractions, correlation) for n in self.neurons]

    def evidence(self, correlation: Tensor) -> str:
        """The evidence of all neurons together.

        ``consistent`` if all are ``for`` the predicted class, ``contradictory`` if any is
        ``against`` it, else ``inconclusive``.
        """
        by_neuron = self.neuron_evidence(correlation)
        if "against" in by_neuron:
            return "contradictory"
        return "consistent" if {*by_neuron} == {"for"} else "inconclusive"


def class_evidence(label: int, fractions: Tensor, correlation: Tensor) -> str:
    """The evidence of a neuron for a class k, from the class fractions p of its top images.

    s = C p is the similarity of each class to the neuron's top images, 1 if these are all of one
    class and k is that class. The evidence is

    - ``nothing`` if there are no top images, or they are of no classes in particular: the highest
      s is below the geometric mean of the average s and 1,
    - ``against`` k if s_k is at most the average,
    - ``for`` k if s_k is at least half of the highest s,
    - ``weak`` in between.

    Args:
        label: k.
        fractions: p, ``[classes]``, of sum 1, or 0 without top images.
        correlation: C, ``[classes, classes]``.
    """
    similarity = correlation @ fractions.to(correlation)
    average, highest, own = similarity.mean(), similarity.max(), similarity[label]
    # Equal numbers may differ by rounding.
    tolerance = 1 + 1e-9
    if not fractions.any() or highest * tolerance < math.sqrt(average):
        return "nothing"
    if own <= average * tolerance:
        return "against"
    return "for" if own * tolerance >= highest / 2 else "weak"


def trace_rows(number: int, trace: Trace, classes: Sequence[str], correlation: Tensor) -> list[Row]:
    """Table rows of a trace, one per neuron; a single row without a neuron if there are none."""
    image, predicted = trace.image, trace.predicted
    head: Row = {
        "trace": number,
        "network": trace.network,
        "kind": image.kind,
        "image": image.name,
        "label_class": _class_name(image.label, classes),
        "target_class": _class_name(image.target, classes),
        "predicted_class": classes[predicted],
        "probability": trace.probabilities[predicted].item(),
        "evidence": trace.evidence(correlation),
        "layer": trace.layer,
        "ablation": trace.ablation,
        "flip": "" if trace.flip is None else trace.flip,
        "removed": trace.removed,
    }
    if not trace.neurons:
        return [{**head, **dict.fromkeys(NEURON_COLUMNS, "")}]
    rows: list[Row] = []
    for neuron in trace.neurons:
        cells = _cells(neuron, trace, classes, correlation)
        rows.append({**head, **dict(zip(NEURON_COLUMNS, cells, strict=True))})
    return rows


# The last columns of a row; classes in descending order of their number of top images.
NEURON_COLUMNS = (
    "channel", "difference", "predicted_logit", "true_logit", "target_logit",
    "without_class", "without_probability", "speaks", "lc", "strongest",
    "first_class", "first_images", "second_class", "second_images", "third_class", "third_images",
)  # fmt: skip


def _cells(
    neuron: Neuron, trace: Trace, classes: Sequence[str], correlation: Tensor
) -> list[str | int | float]:
    """The values of `NEURON_COLUMNS`."""
    count, predicted = len(neuron.strongest), trace.predicted
    fractions, order = neuron.fractions.sort(descending=True, stable=True)
    top = zip(fractions[:CLASSES_IN_TABLE].tolist(), order[:CLASSES_IN_TABLE].tolist(), strict=True)
    class_cells = [
        cell
        for fraction, label in top
        for cell in ((classes[label], round(fraction * count)) if fraction else ("", ""))
    ]
    return [
        neuron.channel,
        neuron.difference,
        *(
            "" if label is None else neuron.contributions[label].item()
            for label in (predicted, trace.image.label, trace.image.target)
        ),
        classes[int(neuron.without.argmax())],
        neuron.without[predicted].item(),
        class_evidence(predicted, neuron.fractions, correlation),
        squared_norm(neuron.fractions, correlation).item(),
        count,
        *class_cells,
        *[""] * (2 * CLASSES_IN_TABLE - len(class_cells)),
    ]


def _class_name(label: int | None, classes: Sequence[str]) -> str:
    return "" if label is None else classes[label]
