"""Single predictions traced to their most influential neurons (Dong et al., §4, Fig. 10)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.data.taxonomy import Taxonomy, correlation_of_classes
from cwx.evaluations.adversarial.features import LayerChoice, check_networks, select_networks
from cwx.evaluations.contributions.reference import (
    ReferenceUnits,
    reference_indices,
    reference_units,
)
from cwx.evaluations.neurons.top_images import Activation
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.traces.figure import trace_figure
from cwx.evaluations.traces.influence import Influence, influence_of_channels, strongest_images
from cwx.evaluations.traces.inputs import TraceImage, file_images, study_images
from cwx.evaluations.traces.trace import Neuron, Trace, trace_rows
from cwx.functional.unit_contributions import Ablation
from cwx.networks.later_layers import LaterLayers
from cwx.training.plan import Plan
from cwx.training.subject import Subject

SETTING = "evaluation.traces"
# float32 may give a channel without influence such a PD: probabilities differ by some 1e-7.
ROUNDING = 1e-12
# Other images of resample ablation.
DRAWS = 4


class Traces:
    """The most influential neurons of single predictions, and their top images.

    The traced images are test images, adversarial images of the same test images, and picture
    files; the networks are the first of each name. A neuron is a channel, read as by
    `cwx.evaluations.neurons`; its influence is the prediction difference PD (Eq 12), and its top
    images are the test images of highest activation, with class fractions p. Images that the
    neuron does not fire on are not among them.

    The table ``traces`` has a row per neuron: PD, its signed contribution to the logits of the
    predicted, the true and the target class (the logit with the neuron minus the logit without
    it), the probability of the predicted class without it, the classes of its top images,
    LC = pᵀCp and its evidence for the predicted class
    (`cwx.evaluations.traces.trace.class_evidence`). ``flip`` is the number of neurons, removed
    greedily, without which the network predicts another class. The figures ``trace_<n>`` show one
    image each (Figure 10). The run's page links to ``traces.html``, which describes each in words.
    ``traces/<network>/<kind>/consistent`` and ``…/contradictory`` are fractions of the traced
    ``test``, ``adversarial`` or ``file`` images by the evidence of their neurons together.

    Args:
        networks: kinds of networks or names of evaluation networks; null for ``expert`` and
            ``fine-tuned``, as far as the study has them.
        layer: name of the neurons' layer; null for the layer that the classifier takes.
        before_nonlinearity: read and remove the neurons after the normalisation of the layer,
            before additions and non-linearities.
        images: number of test images, evenly spaced among the originals of adversarial images if
            there are any, else among all; or a list of indices of test images.
        files: paths of picture files, which are resized to cover the data's images and cropped.
        neurons: at most so many neurons per image; null for all above the threshold.
        threshold: the neurons have a PD above it (§4); 0 for all with an influence.
        ablation: how neurons are removed: ``zero`` (as the paper), ``mean`` or ``resample``, as in
            `cwx.evaluations.contributions.evaluation`; the reference images of the last two are the
            test images that are not traced.
        activation: from the neurons' maps ``[n, channels, …]`` to activations ``[n, channels]``.
        fraction: top images of a neuron as a fraction of the test images, in (0, 1]; at least one
            image.
        taxonomy: gives distances between classes.
        sigma: σ of the correlation C of classes (Eq 2).

    Raises:
        ValueError: a setting is out of range, or there is no image to trace.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layer: str | None,
        before_nonlinearity: bool,
        images: Annotated[int, ">= 0"] | Annotated[Sequence[Annotated[int, ">= 0"]], "distinct"],
        files: Sequence[str],
        neurons: Annotated[int, ">= 1"] | None,
        threshold: Annotated[float, ">= 0"],
        ablation: Literal["zero", "mean", "resample"],
        activation: Activation,
        fraction: Annotated[float, "> 0, <= 1"],
        taxonomy: Taxonomy,
        sigma: Annotated[float, ">= 0.001, <= 1000"],
    ) -> None:
        if isinstance(images, int) and images < 0:
            raise ValueError(f"{SETTING}.images is {images}: give 0 or more, or a list of indices")
        if not images and not files:
            raise ValueError(
                f"{SETTING}.images and {SETTING}.files name no image to trace: give one of them, "
                "or leave traces out of evaluation=[…]"
            )
        if neurons is not None and neurons < 1:
            raise ValueError(f"{SETTING}.neurons is {neurons}: give 1 or more, or null for all")
        if not threshold >= 0:
            raise ValueError(f"{SETTING}.threshold is {threshold}: give 0 or more")
        if not 0 < fraction <= 1:
            raise ValueError(f"{SETTING}.fraction is {fraction}: give a fraction above 0, up to 1")
        self.networks, self.activation = networks, activation
        self.layer = LayerChoice(
            layer=layer, before_nonlinearity=before_nonlinearity, setting=SETTING
        )
        self.images, self.files = images, [Path(file) for file in files]
        self.neurons, self.fraction = neurons, fraction
        self.threshold, self.ablation = max(threshold, ROUNDING), ablation
        self.taxonomy, self.sigma = taxonomy, sigma

    def check(self, plan: Plan) -> None:
        check_networks(plan, self.networks, self.layer)
        count = len(plan.data.splits.test)
        if not isinstance(self.images, int):
            for index in self.images:
                if not 0 <= index < count:
                    raise ValueError(
                        f"{SETTING}.images has {index}, and there are {count} test images: give "
                        f"indices in 0-{count - 1}"
                    )
        if self.ablation != "zero":
            traced = self.images if not isinstance(self.images, int) else range(self.images)
            indices = torch.tensor([index for index in traced if index < count], dtype=torch.long)
            reference_indices(plan.data, indices, f"{SETTING}.images")
        file_images(self.files, plan.data, f"{SETTING}.files")
        self._correlation(plan.data)

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        data, class_correlation = subject.data, self._correlation(subject.data)
        from_files = file_images(self.files, data, f"{SETTING}.files")
        images = [*study_images(subject, self.images), *from_files]
        by_network = [
            self._traces(name, networks[0], images, subject, class_correlation)
            for name, networks in select_networks(subject, self.networks, SETTING).items()
        ]
        # The traces of one image by all networks are consecutive.
        traces = [trace for of_image in zip(*by_network, strict=True) for trace in of_image]
        rows: list[Row] = []
        figures: dict[str, Figure] = {}
        for number, trace in enumerate(traces, 1):
            rows += trace_rows(number, trace, data.classes, class_correlation)
            figure = trace_figure(trace, data.splits.test, data.classes)
            figures[f"trace_{number:0{len(str(len(traces)))}d}"] = figure
        return Outcome(
            metrics=_metrics(traces, class_correlation), tables={"traces": rows}, figures=figures
        )

    def _correlation(self, data: ImageData) -> Tensor:
        return correlation_of_classes(self.taxonomy, data.splits, self.sigma, SETTING)

    def _traces(
        self,
        name: str,
        network: nn.Module,
        images: Sequence[TraceImage],
        subject: Subject,
        class_correlation: Tensor,
    ) -> list[Trace]:
        data, layer = subject.data, self.layer.of(network, subject.data.image_shape)
        later = self.layer.later_layers(network, data.image_shape)
        reference = self._reference(network, later, images, subject)

        def influence_on(image: TraceImage) -> Influence:
            return influence_of_channels(
                self._ablation(later, reference, image, data, next(network.parameters()).device),
                class_correlation,
                count=self.neurons,
                threshold=self.threshold,
            )

        influences = subject.ranks.map(influence_on, images)
        channels = sorted({channel for i in influences for channel in i.channels})
        strongest = strongest_images(
            network, layer, channels, subject, activation=self.activation, fraction=self.fraction
        )
        return [
            Trace(
                image=image,
                network=name,
                layer=layer.name,
                probabilities=influence.probabilities,
                neurons=[
                    Neuron(
                        channel=channel,
                        difference=difference,
                        without=without,
                        contributions=contributions,
                        strongest=strongest[channel],
                        fractions=_class_fractions(strongest[channel], data),
                    )
                    for channel, difference, without, contributions in zip(
                        influence.channels,
                        influence.differences,
                        influence.without,
                        influence.contributions,
                        strict=True,
                    )
                ],
                ablation=self.ablation,
                flip=influence.flip,
                removed=influence.removed,
            )
            for image, influence in zip(images, influences, strict=True)
        ]

    def _reference(
        self,
        network: nn.Module,
        later: LaterLayers,
        images: Sequence[TraceImage],
        subject: Subject,
    ) -> ReferenceUnits | None:
        """The units of the test images that are not traced; ``None`` if none are needed."""
        if self.ablation == "zero":
            return None
        traced = torch.tensor([image.key[0] for image in images if image.key[0] >= 0]).long()
        return reference_units(
            later.read,
            subject.data,
            reference_indices(subject.data, traced, f"{SETTING}.images"),
            activation=self.activation,
            fraction=self.fraction,
            device=next(network.parameters()).device,
            ranks=subject.ranks,
        )

    def _ablation(
        self,
        later: LaterLayers,
        reference: ReferenceUnits | None,
        image: TraceImage,
        data: ImageData,
        device: torch.device,
    ) -> Ablation:
        normalized = data.normalization.from_bytes(image.pixels[None]).to(device)
        units, _ = later.read(normalized)
        replacement = torch.zeros_like(units)[None]
        if reference is not None:
            replacement = reference.replacement(self.ablation, DRAWS, [image.key])
        return Ablation(
            later=partial(later.logits, normalized),
            units=units,
            replacement=replacement,
            chunk=data.batch_size,
        )


def _class_fractions(indices: Tensor, data: ImageData) -> Tensor:
    labels = data.splits.test.labels.cpu()[indices]
    counts = torch.bincount(labels, minlength=len(data.classes)).double()
    return counts / max(len(labels), 1)


def _metrics(traces: Sequence[Trace], class_correlation: Tensor) -> dict[str, float]:
    by_name: dict[str, list[str]] = {}
    for trace in traces:
        name = f"traces/{trace.network}/{trace.image.kind}"
        by_name.setdefault(name, []).append(trace.evidence(class_correlation))
    return {
        f"{name}/{evidence}": values.count(evidence) / len(values)
        for name, values in by_name.items()
        for evidence in ("consistent", "contradictory")
    }
