"""What neurons respond to, in real and in adversarial images (Dong et al., §2.2; D2-D5)."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.splits import Splits
from cwx.data.taxonomy import Taxonomy
from cwx.evaluations.neurons.figures import Sheet, curve
from cwx.evaluations.neurons.responses import Attacked, Responses, responses, together
from cwx.evaluations.neurons.top_images import Activation, Audit, normalised, read_layers
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.functional.class_similarity import binned, correlation
from cwx.functional.top_activations import Top
from cwx.training.build import build_network
from cwx.training.plan import Plan
from cwx.training.subject import KINDS, Subject

log = logging.getLogger(__name__)

SETTING = "evaluation.neurons"
# Before and after.
EXPERTS = ("expert", "fine-tuned")


class Neurons:
    """How high and consistent a level neurons detect, and whether adversarial images keep to it.

    A neuron is a channel of a layer; what it responds to are the classes of its top images. LC is
    the level and consistency of these classes, CS1 how like them the classes of the originals of
    its top adversarial images are, and CS2 how like them the classes that these were made for.
    Neurons that respond to no image more than to the others count nowhere but as ``inactive``.

    The numbers ``neurons/<kind>/lc``, ``/cs1`` and ``/cs2`` are means over the neurons of all
    layers, ``neurons/<kind>/high/…`` over those of the highest LC. The table ``neurons_layers``
    has them by layer, ``neurons_curve`` around equally spaced LC (`std` with ddof 0), and
    ``neurons_top`` neurons of the highest LC of the sheet's layer. The figure ``neurons_curve``
    shows CS1 and CS2 against LC (Figures 4 and 8), ``neurons_sheet_<kind>`` top images (Figures 2
    and 7). Without adversarial images there is no CS, and no curve.

    Args:
        networks: kinds of networks and names of evaluation networks, of each the first network; null for those
            of expert and fine-tuned that there are.
        layers: by name; null for all convolutions, each read behind its normalisation.
        fraction: of the images of each set, those that stand for a neuron, in (0, 1).
        activation: what a channel's maps come to.
        taxonomy: how far apart classes are.
        sigma: of the correlation of classes (Eq 2).
        high: the share of neurons of the highest LC, in (0, 1).
        bins: of LC, equally wide.
        sheet: of top images; null for none.

    Raises:
        ValueError: a number is out of its range, or `networks` is empty.
    """

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layers: Sequence[str] | None,
        fraction: float,
        activation: Activation,
        taxonomy: Taxonomy,
        sigma: float,
        high: float,
        bins: int,
        sheet: Sheet | None,
    ) -> None:
        for name, value in (("fraction", fraction), ("high", high)):
            if not 0 < value < 1:
                raise ValueError(f"{SETTING}.{name} is {value}: give a share between 0 and 1")
        if bins < 1:
            raise ValueError(f"{SETTING}.bins is {bins}: give 1 or more")
        if networks is not None and not networks:
            raise ValueError(
                f"{SETTING}.networks is empty: name a kind of network such as expert, or give null"
            )
        self.networks, self.layers, self.fraction = networks, layers, fraction
        self.activation, self.taxonomy, self.sigma = activation, taxonomy, sigma
        self.high, self.bins, self.sheet = high, bins, sheet

    def check(self, plan: Plan) -> None:
        self._correlation(plan.data.splits)
        evaluation_networks = sorted(plan.networks.keys() - {"network"})
        for kind in self.networks or EXPERTS[:1]:
            if kind not in KINDS and kind not in evaluation_networks:
                raise ValueError(
                    f"{SETTING}.networks has {kind!r}, which is no kind of network and no evaluation network: "
                    f"choose some of {', '.join([*sorted(KINDS), *evaluation_networks])}, or give null"
                )
            if factory := plan.networks.get(kind if kind in evaluation_networks else "network"):
                self._layers(build_network(factory, plan.data, seed=0), plan.data.image_shape)

    def _correlation(self, splits: Splits) -> Tensor:
        distances = self.taxonomy.distances(splits, f"{SETTING}.taxonomy")
        try:
            return correlation(distances, self.sigma)
        except ValueError as error:
            raise ValueError(f"{SETTING}.sigma: {error}") from error

    def _layers(self, network: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
        found = read_layers(network, image_shape, self.layers, f"{SETTING}.layers")
        if self.sheet:
            self.sheet.check(image_shape, found, f"{SETTING}.sheet")
        return found

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        common = self._correlation(subject.data.splits)
        found: dict[str, list[Responses]] = {}
        tops: list[Row] = []
        sheets: dict[str, Figure] = {}
        for kind in self.networks or _experts(subject):
            log.info("looking at what the neurons of %s respond to", kind)
            network = subject.explained(kind).to(subject.device)
            # Nothing but forward passes, which take half of the time in this format on a CPU.
            network.to(memory_format=torch.channels_last)
            found[kind] = self._responses(subject, network, common)
            if self.sheet:
                shown = self.sheet.of(found[kind])
                if rows := _top_rows(kind, shown, self.sheet.neurons, subject.data.classes):
                    tops += rows
                    drawn = self.sheet.draw(shown, subject, network, self.activation)
                    sheets[f"neurons_sheet_{kind}"] = drawn
        values = {kind: together(layers) for kind, layers in found.items()}
        curves = _curves(values, self.bins)
        tables = {
            "neurons_layers": [
                _layer_row(kind, layer) for kind, layers in found.items() for layer in layers
            ],
            "neurons_curve": curves,
            "neurons_top": tops,
        }
        compared = curves and subject.adversarial is not None
        return Outcome(
            metrics={
                f"neurons/{kind}/{name}": number
                for kind, of in values.items()
                for name, number in self._means(of).items()
            },
            tables={name: rows for name, rows in tables.items() if rows},
            figures=sheets | ({"neurons_curve": curve(curves)} if compared else {}),
        )

    def _responses(self, subject: Subject, network: nn.Module, common: Tensor) -> list[Responses]:
        test, adversarial = subject.data.splits.test, subject.adversarial
        audit = Audit(
            layers=self._layers(network, subject.data.image_shape),
            activation=self.activation,
            fraction=self.fraction,
        )

        def top(parts: Iterable[Tensor], count: int) -> Mapping[str, Top]:
            data, device = subject.data, subject.device
            batches = normalised(parts, data.normalization, size=data.batch_size, device=device)
            return audit(network, batches, count)

        real = top([test.images], len(test))
        against: dict[str, Attacked] = {}
        if adversarial is not None:
            images = (part for _, part in adversarial.batches())
            against = {
                name: Attacked(top=found, labels=adversarial.labels, targets=adversarial.targets)
                for name, found in top(images, len(adversarial)).items()
            }
        return [
            responses(name, found, test.labels, against.get(name), common)
            for name, found in real.items()
        ]

    def _means(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Of all neurons, and of those of the highest LC."""
        level = values["lc"]
        if not len(level):
            return {}
        cut = level.topk(max(1, round(self.high * len(level)))).values[-1]
        # Levels that rounding alone tells apart.
        high = level >= cut - 1e-9
        means = {name: value.mean().item() for name, value in values.items()}
        return means | {f"high/{name}": v[high].mean().item() for name, v in values.items()}


def _experts(subject: Subject) -> list[str]:
    there = zip(EXPERTS, (subject.trajectories, subject.fine_tuned), strict=True)
    return [kind for kind, found in there if found]


def _layer_row(kind: str, layer: Responses) -> Row:
    responding = layer.responding
    return {
        "kind": kind,
        "layer": layer.layer,
        "neurons": len(responding),
        "inactive": int((~responding).sum()),
        "top": len(layer.real.values),
        **{
            name: values[responding].mean().item() if responding.any() else ""
            for name, values in layer.values.items()
        },
    }


def _top_rows(kind: str, layer: Responses, count: int, classes: Sequence[str]) -> list[Row]:
    return [
        {
            "kind": kind,
            "layer": layer.layer,
            "neuron": neuron,
            **{name: values[neuron].item() for name, values in layer.values.items()},
            "class": classes[layer.dominating(neuron)[0]],
            "fraction": layer.fractions[neuron].max().item(),
        }
        for neuron in layer.highest(count)
    ]


def _curves(found: Mapping[str, Mapping[str, Tensor]], bins: int) -> list[Row]:
    """Means around LC by kind, in the same bins for all; those without neurons are left out."""
    levels = torch.cat([values["lc"] for values in found.values()])
    if not len(levels):
        return []
    edges = torch.linspace(levels.min().item(), levels.max().item(), bins + 1, dtype=levels.dtype)
    centres = (edges[1:] + edges[:-1]) / 2
    rows: list[Row] = []
    for kind, values in found.items():
        by_bin = {name: binned(values["lc"], v, edges) for name, v in values.items()}
        for place in by_bin["lc"].count.nonzero()[:, 0].tolist():
            row = {"kind": kind, "lc": centres[place].item()}
            row["neurons"] = int(by_bin["lc"].count[place])
            for name in [name for name in values if name != "lc"]:
                row[name] = by_bin[name].mean[place].item()
                row[f"{name}_std"] = by_bin[name].std[place].item()
            rows.append(row)
    return rows
