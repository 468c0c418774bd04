"""The atlas of neurons: every unit of every layer, before and after fine-tuning."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.streamed_images import Images
from cwx.data.taxonomy import Taxonomy
from cwx.evaluations.atlas.columns import (
    COLUMNS,
    dominant_class,
    image_columns,
    joined,
    layer_columns,
    shown_images,
)
from cwx.evaluations.atlas.thumbnails import choose_images, thumbnails
from cwx.evaluations.atlas.unit_pass import (
    UnitMeasures,
    UnitTask,
    measure_units,
    sample_activations,
)
from cwx.evaluations.neurons.network_audit import NetworkAudit
from cwx.evaluations.neurons.responses import LayerResponses
from cwx.evaluations.neurons.top_images import Activation, Batch, normalized_batches
from cwx.evaluations.outcome import Outcome, Sources
from cwx.functional.auroc import RunningAuroc
from cwx.networks.receptive_fields import receptive_fields
from cwx.storage.atomic import tensor_bytes
from cwx.storage.run_files import ATLAS, ATLAS_IMAGES, ATLAS_METADATA
from cwx.training.plan import Plan
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

SETTING = "evaluation.neuron_atlas"
# Test images whose activations are the edges of the bins of detection scores: 40 MB for 5,000
# units, and an AUROC that is known to about 0.001.
EDGES = 512

Columns = dict[str, Tensor]


class NeuronAtlas:
    """Every unit with its measures and its top images, as a table and as a page.

    The file ``neuron_atlas/units.safetensors`` has a row per unit, in columns
    (`cwx.evaluations.atlas.columns.COLUMNS`) called ``<network>/<column>``; units of two networks
    of one architecture match by row. ``neuron_atlas/images.safetensors`` has the top images for the
    page ``neuron_atlas.html``, each once, reduced to sides of at most 64 pixels.

    A unit *fires* on an image if its activation is above its resting value: what the non-linearity
    that it is read after gives for 0, such as 0 for ReLU and GELU and 0.5 for a sigmoid; 0 if it is
    read before a non-linearity. The *detection score* is the probability that a test image of the
    unit's dominant class has a higher activation than one of another class; ties count half.

    Two passes over the images serve all layers. Memory: one batch of activations, the top images of
    a unit and 8 KB of counts per unit, for any number of images.

    Args:
        networks, layers, before_nonlinearity, fraction, activation, taxonomy, sigma: as those of
            `cwx.evaluations.neurons.evaluation.Neurons`.
        images: top images of a unit that the atlas keeps, at most.

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
        images: Annotated[int, ">= 1, <= 100"],
    ) -> None:
        if images < 1:
            raise ValueError(f"{SETTING}.images is {images}: give 1 or more")
        self.audit = NetworkAudit(
            setting=SETTING,
            networks=networks,
            layers=layers,
            before_nonlinearity=before_nonlinearity,
            fraction=fraction,
            activation=activation,
            taxonomy=taxonomy,
            sigma=sigma,
        )
        self.images = images

    def check(self, plan: Plan) -> None:
        self.audit.check(plan, lambda _: None)

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        correlation = self.audit.correlation(subject.data.splits)
        columns: Columns = {}
        networks: dict[str, Any] = {}
        for name in self.audit.network_names(subject):
            log.info("describing the units of %s", name)
            network = subject.first_network(name)
            # There are forward passes only; channels_last halves their time on a CPU.
            network.to(memory_format=torch.channels_last)
            layers = self.audit.unit_layers(network, subject.data.image_shape)
            responses = self.audit.responses(subject, network, layers, correlation)
            of_network = self._columns(subject, network, responses)
            columns |= {f"{name}/{column}": values for column, values in of_network.items()}
            networks[name] = {
                "layers": [
                    {
                        "name": layer.layer.name,
                        "units": len(layer.responding),
                        "read_after": layer.layer.place,
                        "resting": layer.layer.resting,
                    }
                    for layer in responses
                ]
            }
        about = {
            "networks": networks,
            "classes": list(subject.data.classes),
            "image_shape": list(subject.data.image_shape),
            "test_images": len(subject.data.splits.test),
            "adversarial_images": len(subject.adversarial) if subject.adversarial else 0,
            "fraction": self.audit.fraction,
            "sigma": self.audit.sigma,
            "images": self.images,
            "columns": COLUMNS,
        }
        metadata = {ATLAS_METADATA: json.dumps(about)}
        return Outcome(
            files={
                ATLAS: tensor_bytes(columns, metadata),
                ATLAS_IMAGES: tensor_bytes(_images(subject, columns), {}),
            }
        )

    def _columns(
        self, subject: Subject, network: nn.Module, responses: Sequence[LayerResponses]
    ) -> Columns:
        test, adversarial = subject.data.splits.test, subject.adversarial
        fields = receptive_fields(
            network, subject.data.image_shape, [layer.layer for layer in responses]
        )
        of_layers: list[Columns] = []
        real = self._measure(subject, network, responses)
        for number, (layer, measures) in enumerate(zip(responses, real, strict=True)):
            columns = layer_columns(layer, measures, number=number, test_images=len(test))
            tops = image_columns(
                layer.real, measures.positions, fields[layer.layer.name], {"labels": test.labels}
            )
            of_layers.append(columns | {f"real/{name}": values for name, values in tops.items()})
        if adversarial is None:
            return joined(of_layers)
        attacked = self._measure_attacked(subject, network, responses, adversarial)
        classes = {"labels": adversarial.labels, "targets": adversarial.targets}
        for columns, layer, measures in zip(of_layers, responses, attacked, strict=True):
            assert layer.adversarial is not None
            tops = image_columns(
                layer.adversarial, measures.positions, fields[layer.layer.name], classes
            )
            columns |= {f"adversarial/{name}": values for name, values in tops.items()}
        return joined(of_layers)

    def _measure(
        self, subject: Subject, network: nn.Module, responses: Sequence[LayerResponses]
    ) -> list[UnitMeasures]:
        """The measures of all test images."""
        test = subject.data.splits.test
        edges = sample_activations(
            network,
            _normalized(subject, [test.spread(EDGES).images]),
            [layer.layer for layer in responses],
            self.audit.activation,
            subject.ranks,
        )
        tasks = [
            UnitTask(
                layer=layer.layer,
                top=shown_images(layer.real, self.images),
                detection=RunningAuroc(edges[layer.layer.name]),
                classes=dominant_class(layer),
            )
            for layer in responses
        ]
        batches = _normalized(subject, [test.images])
        return measure_units(
            network, batches, test.labels, tasks, self.audit.activation, subject.ranks
        )

    def _measure_attacked(
        self,
        subject: Subject,
        network: nn.Module,
        responses: Sequence[LayerResponses],
        adversarial: AdversarialSet,
    ) -> list[UnitMeasures]:
        """The positions in the top adversarial images: others are not read again."""
        tasks = [
            UnitTask(layer=layer.layer, top=shown_images(layer.adversarial, self.images))
            for layer in responses
            if layer.adversarial is not None
        ]
        shown = torch.cat([task.top.flatten() for task in tasks]).unique()
        is_shown = torch.zeros(len(adversarial), dtype=torch.bool)
        is_shown[shown[shown >= 0]] = True
        parts = (
            images[is_shown[rows]] for rows, images in adversarial.batches() if is_shown[rows].any()
        )
        indices = is_shown.nonzero()[:, 0]
        batches = ((indices[rows], images) for rows, images in _normalized(subject, parts))
        return measure_units(
            network, batches, adversarial.labels, tasks, self.audit.activation, subject.ranks
        )


def _normalized(subject: Subject, parts: Iterable[Images]) -> Iterator[Batch]:
    data = subject.data
    return normalized_batches(
        parts,
        data.normalization,
        size=data.batch_size,
        device=subject.device,
        ranks=subject.ranks,
    )


def _images(subject: Subject, columns: Mapping[str, Tensor]) -> Columns:
    """The images of the page by set: their indices ``[m]`` and bytes ``[m, C, h, w]``."""
    test, adversarial = subject.data.splits.test, subject.adversarial
    channels, height, width = subject.data.image_shape
    sets = ["real"] if adversarial is None else ["real", "adversarial"]
    tops = [
        [values for name, values in columns.items() if name.endswith(f"/{kind}/images")]
        for kind in sets
    ]
    kept, size = choose_images(tops, height, width)

    def read(kind: str, batch: Tensor) -> Tensor:
        if kind == "adversarial" and adversarial is not None:
            return adversarial.at(batch)
        return test.at(batch).images[:]

    images: Columns = {}
    for kind, indices in zip(sets, kept, strict=True):
        images[f"{kind}/indices"] = indices.int()
        images[f"{kind}/pixels"] = thumbnails(indices, partial(read, kind), size, channels)
    return images
