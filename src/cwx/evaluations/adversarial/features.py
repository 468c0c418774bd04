"""Networks before and after fine-tuning, and features φ of their layers (Dong et al., §2-4)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.functional.representation_distance import Pooling
from cwx.networks.finite_logits import finite_logits
from cwx.networks.later_layers import LaterLayers
from cwx.networks.unit_layers import LOGITS, UnitLayer, UnitLayers
from cwx.networks.unit_outputs import unit_outputs
from cwx.training.build import build_network
from cwx.training.plan import Plan
from cwx.training.subject import Subject

BEFORE_AND_AFTER = ("expert", "fine-tuned")


def select_networks(
    subject: Subject, names: Sequence[str] | None, setting: str
) -> dict[str, list[nn.Module]]:
    """Networks by name, on the subject's device.

    Args:
        subject: the study.
        names: kinds of networks or evaluation networks; ``None`` for ``expert`` and
            ``fine-tuned``, as far as the study has them.
        setting: the evaluation's part of the configuration, for messages.

    Raises:
        ValueError: the study has no such networks; the message lists those that it has.
    """
    panel = subject.panel()
    selected = [n for n in BEFORE_AND_AFTER if n in panel] if names is None else names
    _check_names(selected, list(panel), setting)
    # There are forward passes only; channels_last halves their time on a CPU.
    return {
        name: [n.to(memory_format=torch.channels_last) for n in panel[name]] for name in selected
    }


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """The layer of a network whose units an evaluation reads.

    Attributes:
        layer: its name; ``None`` for that of `UnitLayers.last`.
        before_nonlinearity: see `UnitLayers`.
        setting: the evaluation's part of the configuration, for messages.
    """

    layer: str | None
    before_nonlinearity: bool
    setting: str

    def of(self, network: nn.Module, image_shape: Sequence[int]) -> UnitLayer:
        """The layer of a network.

        Raises:
            ValueError: there is no such layer.
        """
        return self._units(network, image_shape).last(self.layer, f"{self.setting}.layer")

    def later_layers(self, network: nn.Module, image_shape: Sequence[int]) -> LaterLayers:
        """The layers of a network after the units of this layer.

        Raises:
            ValueError: there is no such layer.
        """
        units = self._units(network, image_shape)
        layer = units.last(self.layer, f"{self.setting}.layer")
        return LaterLayers(network, layer, is_bottleneck=units.is_bottleneck(layer))

    def _units(self, network: nn.Module, image_shape: Sequence[int]) -> UnitLayers:
        return UnitLayers(network, image_shape, before_nonlinearity=self.before_nonlinearity)


def check_networks(plan: Plan, names: Sequence[str] | None, choice: LayerChoice) -> list[nn.Module]:
    """Untrained networks of the kinds that the evaluation will use, as far as the plan knows them.

    Args:
        plan: the study.
        names: see `select_networks`.
        choice: the layer that the evaluation reads.

    Raises:
        ValueError: there will be no such networks, or they have no such layer.
    """
    if names is not None:
        _check_names(names, plan.kinds or names, choice.setting)
    factories = {
        plan.networks.get(name, plan.networks.get("network"))
        for name in (BEFORE_AND_AFTER[:1] if names is None else names)
    }
    networks = [build_network(f, plan.data, seed=0) for f in factories if f is not None]
    for network in networks:
        choice.of(network, plan.data.image_shape)
    return networks


def feature_counts(
    plan: Plan, names: Sequence[str] | None, choice: LayerChoice, pooling: Pooling
) -> Iterator[int]:
    """d, the number of features φ of each network of `check_networks`.

    Args:
        pooling: see `feature_extractor`.
    """
    for network in check_networks(plan, names, choice):
        network.eval()
        with feature_extractor(network, plan.data, choice, pooling) as extract:
            features, _ = extract(torch.zeros(1, *plan.data.image_shape))
        yield features.shape[1]


def _check_names(names: Sequence[str], available: Sequence[str], setting: str) -> None:
    if not names:
        raise ValueError(
            f"{setting}.networks is empty: give some of {', '.join(available)}, or null for the "
            "experts before and after fine-tuning"
        )
    if missing := [name for name in names if name not in available]:
        raise ValueError(
            f"{setting}.networks has {missing[0]!r}, and this study has no such networks: give "
            f"some of {', '.join(available)}, or null for the experts before and after fine-tuning"
        )


# From normalised images [b, C, H, W] to features φ [b, d] and predicted classes [b].
ExtractFeatures = Callable[[Tensor], tuple[Tensor, Tensor]]


@contextmanager
def feature_extractor(
    network: nn.Module, data: ImageData, choice: LayerChoice, pooling: Pooling
) -> Iterator[ExtractFeatures]:
    """A function that returns φ and the predicted class of images, on the network's device.

    Args:
        network: in eval mode.
        data: gives the shape of images.
        choice: the layer of φ.
        pooling: from the units' tensor ``[n, units, …]`` to vectors.

    Raises:
        ValueError: there is no such layer.
    """
    features = choice.of(network, data.image_shape)
    device = next(network.parameters()).device
    with unit_outputs(network, [features, LOGITS]) as outputs, torch.no_grad():

        def extract(images: Tensor) -> tuple[Tensor, Tensor]:
            by_layer = outputs(images.to(device))
            return pooling(by_layer[features.name]), finite_logits(by_layer[LOGITS.name]).argmax(1)

        yield extract


def adversarial_batches(
    data: ImageData, adversarial: AdversarialSet, *, first: int = 0, step: int = 1
) -> Iterator[tuple[slice, Tensor]]:
    """Batches of at most `data.batch_size` normalised adversarial images, and their row range.

    Args:
        data: the images.
        adversarial: the set.
        first, step: those of every `step`-th file of the set from number `first` on.
    """
    for rows, images in adversarial.batches(first=first, step=step):
        for start in range(0, len(images), data.batch_size):
            batch = images[start : start + data.batch_size]
            first = rows.start + start
            yield slice(first, first + len(batch)), data.normalization.from_bytes(batch)
