"""Single predictions traced to the neurons that decided them (Dong et al., §4, Figure 10; D9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.data.taxonomy import Taxonomy
from cwx.evaluations.adversarial.features import check_networks, compared
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.traces.figure import trace_figure
from cwx.evaluations.traces.inputs import Pictured, of_files, of_study
from cwx.evaluations.traces.trace import Neuron, Trace, rows_of
from cwx.functional.class_similarity import correlation
from cwx.functional.prediction_difference import prediction_differences, probabilities_without
from cwx.functional.top_activations import Highest, spatial_maximum
from cwx.networks.layer_outputs import layer_outputs
from cwx.networks.layers import attended_layer
from cwx.training.plan import Plan
from cwx.training.subject import Subject

PLACE = "evaluation.traces"
# A PD that float32 may give a channel without influence, of probabilities some 1e-7 apart.
ROUNDING = 1e-12


class Traces:
    """The most influential neurons of single predictions, and what these fire for.

    Traced are test images, the adversarial images made from the same test images, and pictures of
    the user's own, by the first network of each kind. A neuron is a channel, its influence the
    prediction difference PD (Eq 12), and what it fires for are the test images of highest spatial
    maximum and their classes p.

    The table ``traces`` has a row a neuron, with PD, the probability of the predicted class without
    it, the classes of its images, LC = pᵀCp and what it says of the predicted class
    (`cwx.evaluations.traces.trace.speaks_for`). The figures ``trace_<n>`` show one image each
    (Figure 10), and the run's page leads to ``traces.html``, where each is told in words.
    ``traces/<network>/<kind>/consistent`` and ``/contradictory`` are shares of the traced ``test``,
    ``adversarial`` or ``file`` images by what their neurons say together.

    Args:
        networks: names of kinds or evaluation networks; null for ``expert`` and ``fine_tuned``, as there are.
        layer: what the neurons are the channels of; null for the last that gives maps of more than
            one place.
        images: so many test images, evenly spaced among those that adversarial images were made
            from, if there are any, else among all; or a list of indices of test images.
        files: paths of picture files, which are resized to cover the data's images and cut.
        neurons: how many for each image.
        fraction: of the test images that tell what a neuron fires for, in 0-1; at least one.
        taxonomy: how far classes are from each other.
        sigma: σ, by which distances become correlations C.

    Raises:
        ValueError: a setting is out of range, or there is nothing to trace.
    """

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layer: str | None,
        images: int | Sequence[int],
        files: Sequence[str],
        neurons: int,
        fraction: float,
        taxonomy: Taxonomy,
        sigma: float,
    ) -> None:
        if isinstance(images, int) and images < 0:
            raise ValueError(f"{PLACE}.images is {images}: give 0 or more, or a list of indices")
        if not images and not files:
            raise ValueError(
                f"{PLACE}.images and {PLACE}.files name no image to trace: give one of them, or "
                "leave traces out of evaluation=[…]"
            )
        if neurons < 1:
            raise ValueError(f"{PLACE}.neurons is {neurons}: give 1 or more")
        if not 0 < fraction <= 1:
            raise ValueError(f"{PLACE}.share is {fraction}: give a share above 0, up to 1")
        self.networks, self.layer = networks, layer
        self.images, self.files = images, [Path(file) for file in files]
        self.neurons, self.fraction = neurons, fraction
        self.taxonomy, self.sigma = taxonomy, sigma

    def check(self, plan: Plan) -> None:
        check_networks(plan, self.networks, self.layer, PLACE)
        count = len(plan.data.splits.test)
        if not isinstance(self.images, int):
            for index in self.images:
                if not 0 <= index < count:
                    raise ValueError(
                        f"{PLACE}.images has {index}, and there are {count} test images: give "
                        f"indices in 0-{count - 1}"
                    )
        of_files(self.files, plan.data, f"{PLACE}.files")
        self._correlation(plan.data)

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        data, closeness = subject.data, self._correlation(subject.data)
        own = of_files(self.files, data, f"{PLACE}.files")
        pictured = [*of_study(subject, self.images), *own]
        networks = compared(subject, self.networks, PLACE)
        of_networks = [
            self._traces(name, found[0], pictured, data, closeness)
            for name, found in networks.items()
        ]
        # One image before and after stands together.
        traces = [trace for together in zip(*of_networks, strict=True) for trace in together]
        rows: list[Row] = []
        figures: dict[str, Figure] = {}
        for number, trace in enumerate(traces, 1):
            rows += rows_of(number, trace, data.classes, closeness)
            figure = trace_figure(trace, data.splits.test, data.classes)
            figures[f"trace_{number:0{len(str(len(traces)))}d}"] = figure
        return Outcome(
            metrics=_metrics(traces, closeness), tables={"traces": rows}, figures=figures
        )

    def _correlation(self, data: ImageData) -> Tensor:
        return correlation(self.taxonomy.distances(data.splits, f"{PLACE}.taxonomy"), self.sigma)

    def _traces(
        self,
        name: str,
        network: nn.Module,
        pictured: Sequence[Pictured],
        data: ImageData,
        closeness: Tensor,
    ) -> list[Trace]:
        layer = attended_layer(network, data.image_shape, self.layer, f"{PLACE}.layer")
        probed = [
            _probe(network, layer, image, data, closeness=closeness, neurons=self.neurons)
            for image in pictured
        ]
        channels = sorted({channel for found in probed for channel in found.channels})
        strongest = self._strongest(network, layer, channels, data)
        return [
            Trace(
                pictured=image,
                network=name,
                layer=layer,
                probabilities=found.whole,
                neurons=[
                    Neuron(
                        channel=channel,
                        difference=difference,
                        without=without,
                        strongest=strongest[channel],
                        fractions=_shares(strongest[channel], data),
                    )
                    for channel, difference, without in zip(
                        found.channels, found.differences, found.without, strict=True
                    )
                ],
            )
            for image, found in zip(pictured, probed, strict=True)
        ]

    @torch.no_grad()
    def _strongest(
        self, network: nn.Module, layer: str, channels: Sequence[int], data: ImageData
    ) -> Mapping[int, Tensor]:
        """The test images that excite each of these channels most, from one pass over all."""
        if not channels:
            return {}
        found, first = Highest(max(1, round(self.fraction * len(data.splits.test)))), 0
        device = next(network.parameters()).device
        with layer_outputs(network, [layer]) as outputs:
            for batch in data.test_batches():
                maps = outputs(batch.images.to(device))[layer]
                places = torch.arange(first, first + len(maps), device=device)
                found.add(spatial_maximum(maps[:, list(channels)]), places)
                first += len(maps)
        return dict(zip(channels, found.top().indices.T.cpu(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Probed:
    """Probabilities of an image ``[classes]``, and of the channels of most influence, the first
    foremost: which they are, their PD, and probabilities without each ``[channels, classes]``."""

    whole: Tensor
    channels: Sequence[int]
    differences: Sequence[float]
    without: Tensor


def _probe(
    network: nn.Module,
    layer: str,
    image: Pictured,
    data: ImageData,
    *,
    closeness: Tensor,
    neurons: int,
) -> Probed:
    device = next(network.parameters()).device
    normalized = data.normalization.from_bytes(image.pixels[None]).to(device)
    whole, without = probabilities_without(
        network, network.get_submodule(layer), normalized, chunk=data.batch_size
    )
    differences = prediction_differences(whole, without, closeness)
    order = differences.argsort(descending=True, stable=True)[:neurons]
    order = order[differences[order] > ROUNDING]
    return Probed(
        whole=whole.cpu(),
        channels=order.tolist(),
        differences=differences[order].tolist(),
        without=without[order].cpu(),
    )


def _shares(indices: Tensor, data: ImageData) -> Tensor:
    labels = data.splits.test.labels.cpu()[indices]
    return torch.bincount(labels, minlength=len(data.classes)).double() / len(labels)


def _metrics(traces: Sequence[Trace], closeness: Tensor) -> dict[str, float]:
    found: dict[str, list[str]] = {}
    for trace in traces:
        name = f"traces/{trace.network}/{trace.pictured.kind}"
        found.setdefault(name, []).append(trace.evidence(closeness))
    return {
        f"{name}/{evidence}": said.count(evidence) / len(said)
        for name, said in found.items()
        for evidence in ("consistent", "contradictory")
    }
