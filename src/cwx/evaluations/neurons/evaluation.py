"""Top real and adversarial images of neurons, with LC, CS1 and CS2 (Dong et al., §2.2)."""

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.data.taxonomy import Taxonomy
from cwx.evaluations.neurons.figures import Sheet, similarity_curve
from cwx.evaluations.neurons.network_audit import NetworkAudit
from cwx.evaluations.neurons.responses import LayerResponses, mean_of, responding_values
from cwx.evaluations.neurons.tables import closest_classes, curve_rows, layer_row, top_rows
from cwx.evaluations.neurons.top_images import Activation
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.networks.unit_layers import UnitLayer
from cwx.training.plan import Plan
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

SETTING = "evaluation.neurons"


class Neurons:
    """Semantic level and consistency (LC) of neurons, and CS of their real and adversarial images.

    A neuron is a channel of a layer, read after the normalisation, the residual addition and the
    non-linearity that follow it (`cwx.networks.unit_layers`). LC is the level and consistency of
    the classes of its top images, CS1 their similarity to the classes of the originals of its top
    adversarial images, and CS2 their similarity to the target classes of these. Images count whose
    activation is above that of every other image: images that a neuron does not fire on are all
    alike to it. Neurons without such images are left out of all metrics but the table's column
    ``inactive``.

    The metrics ``neurons/<network>/lc``, ``…/cs1`` and ``…/cs2``, and their controls under permuted
    classes ``…/cs1_permuted`` and ``…/cs2_permuted`` and with noise instead of the attack,
    ``…/cs1_noise`` and ``…/cs2_noise``, are means over the neurons of all layers,
    ``neurons/<network>/high/…`` over those of highest LC. The table ``neurons_layers`` has them by
    layer, ``neurons_curve`` in equal bins of LC (std with ddof 0, and the standard error of the
    mean), and ``neurons_top`` the neurons of highest LC of the sheet's layer; ``neurons_classes``
    the pairs of classes of highest correlation, without which LC is the chance that two top images
    are of one class. The figure ``neurons_curve`` shows CS1 and CS2 against LC (Figures 4 and 8),
    ``neurons_sheet_<network>`` top images (Figures 2 and 7). Without adversarial images there is no
    CS and no curve.

    Args:
        networks: kinds of networks and names of evaluation networks, the first network of each;
            null for ``expert`` and ``fine-tuned``, as far as the study has them.
        layers: names; null for all convolutions and, on tokens, MLPs and the residual stream.
        before_nonlinearity: read the neurons after the normalisation of their layer, before
            additions and non-linearities.
        fraction: top images of a neuron as a fraction of the images of each set, in (0, 1).
        activation: from a layer's output to an activation per channel.
        taxonomy: gives distances between classes.
        sigma: σ of the correlation of classes (Eq 2).
        high: fraction of neurons of highest LC, in (0, 1).
        bins: number of equal bins of LC between 0 and 1.
        noise: measure CS of images with random noise as well, of the same L2 norm as each
            adversarial perturbation.
        sheet: of top images; null for none.

    Raises:
        ValueError: a number is out of its range, or `networks` is empty.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layers: Annotated[Sequence[str], "distinct"] | None,
        before_nonlinearity: bool,
        fraction: Annotated[float, "> 0, < 1"],
        activation: Activation,
        taxonomy: Taxonomy,
        sigma: Annotated[float, ">= 0.001, <= 1000"],
        high: Annotated[float, "> 0, < 1"],
        bins: Annotated[int, ">= 1, <= 1000"],
        noise: bool,
        sheet: Sheet | None,
    ) -> None:
        if not 0 < high < 1:
            raise ValueError(f"{SETTING}.high is {high}: give a fraction between 0 and 1")
        if bins < 1:
            raise ValueError(f"{SETTING}.bins is {bins}: give 1 or more")
        self.audit = NetworkAudit(
            setting=SETTING,
            networks=networks,
            layers=layers,
            before_nonlinearity=before_nonlinearity,
            fraction=fraction,
            activation=activation,
            taxonomy=taxonomy,
            sigma=sigma,
            noise=noise,
        )
        self.high, self.bins, self.sheet = high, bins, sheet

    def check(self, plan: Plan) -> None:
        def check_sheet(layers: Sequence[UnitLayer]) -> None:
            if self.sheet:
                names = [layer.name for layer in layers]
                self.sheet.check(plan.data.image_shape, names, f"{SETTING}.sheet")

        self.audit.check(plan, check_sheet)

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        class_correlation = self.audit.correlation(subject.data.splits)
        responses: dict[str, list[LayerResponses]] = {}
        highest: list[Row] = []
        figures: dict[str, Figure] = {}
        for name in self.audit.network_names(subject):
            log.info("finding the top images of the neurons of %s", name)
            network = subject.first_network(name)
            # There are forward passes only; channels_last halves their time on a CPU.
            network.to(memory_format=torch.channels_last)
            layers = self.audit.unit_layers(network, subject.data.image_shape)
            responses[name] = self.audit.responses(subject, network, layers, class_correlation)
            if self.sheet:
                layer = self.sheet.select_layer(responses[name])
                if rows := top_rows(name, layer, self.sheet.neurons, subject.data.classes):
                    highest += rows
                    figure = self.sheet.draw(layer, subject, network, self.audit.activation)
                    figures[f"neurons_sheet_{name}"] = figure
        values = {name: responding_values(layers) for name, layers in responses.items()}
        curve = curve_rows(values, self.bins)
        if curve and subject.adversarial is not None:
            figures["neurons_curve"] = similarity_curve(curve)
        tables = {
            "neurons_classes": closest_classes(class_correlation, subject.data.classes),
            "neurons_layers": [
                layer_row(name, layer) for name, layers in responses.items() for layer in layers
            ],
            "neurons_curve": curve,
            "neurons_top": highest,
        }
        return Outcome(
            metrics={
                f"neurons/{name}/{metric}": value
                for name, of_network in values.items()
                for metric, value in self._means(of_network).items()
            },
            tables={name: rows for name, rows in tables.items() if rows},
            figures=figures,
        )

    def _means(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over all neurons, and over those of highest LC."""
        level = values["lc"]
        if not len(level):
            return {}
        threshold = level.topk(max(1, round(self.high * len(level)))).values[-1]
        # Levels that differ only by rounding count as equal.
        high = level >= threshold - 1e-9
        means = {name: mean_of(value) for name, value in values.items()}
        means |= {f"high/{name}": mean_of(value[high]) for name, value in values.items()}
        return {name: mean for name, mean in means.items() if mean is not None}
