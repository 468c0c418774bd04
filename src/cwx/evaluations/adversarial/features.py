"""The networks that are compared before and after they are fine-tuned, and what a layer of them gives.

Dong et al., §2-4: the same is measured of an ``expert`` and of the ``fine_tuned`` one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.functional.representation_distance import Pooling
from cwx.networks.layer_outputs import layer_outputs
from cwx.networks.layers import attended_layer
from cwx.training.build import build_network
from cwx.training.plan import Plan
from cwx.training.subject import Subject

BEFORE_AND_AFTER = ("expert", "fine-tuned")


def compared(
    subject: Subject, names: Sequence[str] | None, place: str
) -> dict[str, list[nn.Module]]:
    """The networks of those kinds, or of evaluation networks, by name; null for those before and after.

    Args:
        place: of the evaluation among the settings.

    Raises:
        ValueError: the study has no such networks; with those that it has.
    """
    panel = subject.panel()
    chosen = [n for n in BEFORE_AND_AFTER if n in panel] if names is None else names
    _check_names(chosen, list(panel), place)
    # Nothing but forward passes, which take half of the time in this format on a CPU.
    return {
        name: [n.to(subject.device, memory_format=torch.channels_last) for n in panel[name]]  # type: ignore[call-overload]
        for name in chosen
    }


def check_networks(
    plan: Plan, names: Sequence[str] | None, layer: str | None, place: str
) -> list[nn.Module]:
    """Untrained networks of the kinds that will be compared, as far as the plan tells.

    Raises:
        ValueError: there will be no such networks, or they have no such layer.
    """
    if names is not None:
        _check_names(names, plan.kinds or names, place)
    factories = {
        plan.networks.get(name, plan.networks.get("network"))
        for name in (BEFORE_AND_AFTER[:1] if names is None else names)
    }
    networks = [build_network(f, plan.data, seed=0) for f in factories if f is not None]
    for network in networks:
        attended_layer(network, plan.data.image_shape, layer, f"{place}.layer")
    return networks


def _check_names(names: Sequence[str], there: Sequence[str], place: str) -> None:
    if not names:
        raise ValueError(
            f"{place}.networks is empty: give some of {', '.join(there)}, or null for those before "
            "and after they are fine-tuned"
        )
    if missing := [name for name in names if name not in there]:
        raise ValueError(
            f"{place}.networks has {missing[0]!r}, and this study has no such networks: give some "
            f"of {', '.join(there)}, or null for those before and after they are fine-tuned"
        )


# From normalised images [b, C, H, W] to φ [b, d] and the predicted class [b].
Represent = Callable[[Tensor], tuple[Tensor, Tensor]]


@contextmanager
def representing(
    network: nn.Module, data: ImageData, layer: str | None, pooling: Pooling, place: str
) -> Iterator[Represent]:
    """While open, gives φ of images and their predicted class, both where the network is.

    Args:
        layer: which gives φ, by name; the last with maps of more than one place if ``None``.
        place: of the evaluation among the settings.

    Raises:
        ValueError: there is no such layer.
    """
    name = attended_layer(network, data.image_shape, layer, f"{place}.layer")
    device = next(network.parameters()).device
    # The network itself goes by no name.
    with layer_outputs(network, [name, ""]) as outputs, torch.no_grad():

        def represent(images: Tensor) -> tuple[Tensor, Tensor]:
            given = outputs(images.to(device))
            return pooling(given[name]), given[""].argmax(1)

        yield represent


def adversarial_batches(
    data: ImageData, adversarial: AdversarialSet
) -> Iterator[tuple[slice, Tensor]]:
    """Which adversarial images, and these normalised, `data.batch_size` at a time."""
    for rows, images in adversarial.batches():
        for start in range(0, len(images), data.batch_size):
            part = images[start : start + data.batch_size]
            first = rows.start + start
            yield slice(first, first + len(part)), data.normalization.from_bytes(part)
