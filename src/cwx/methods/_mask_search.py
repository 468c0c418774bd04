"""Settings of the mask search, and the choice of its weight α (ISCP, §4.1 and Appendix A)."""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cwx.explanations.patterns import Attach
from cwx.functional.images import Normalization
from cwx.functional.mask_search import best_weights, pixels
from cwx.networks.finite_logits import finite_logits

log = logging.getLogger(__name__)


def check_settings(stage: str, initial: float, beta: float) -> None:
    """Refuse settings out of range.

    Raises:
        ValueError: names the first such setting.
    """
    if beta < 0:
        raise ValueError(f"method.{stage}.beta is {beta}: give 0 or more")
    if not 0 <= initial <= 1:
        raise ValueError(f"method.{stage}.initial is {initial}: give a mask in 0-1")


def check_canvas_network(kind: str | None, kinds: Sequence[str], stage: str) -> None:
    """Refuse a network to choose canvases that is none of `kinds`; empty if these are unknown.

    Raises:
        ValueError: lists the choices.
    """
    if kind is not None and kinds and kind not in kinds:
        raise ValueError(
            f"method.{stage}.canvas_network is {kind!r}, but this study has no such network: set "
            f"it to one of {', '.join(kinds)}, or null for the explained network"
        )


def alpha_values(alpha: float | Sequence[float], stage: str) -> list[float]:
    """The weights to choose from; a single number is the only one.

    Raises:
        ValueError: a weight is negative or named twice, or there is none.
    """
    values = list(alpha) if isinstance(alpha, Sequence) else [alpha]
    if not values or len(set(values)) < len(values) or min(values) < 0:
        raise ValueError(
            f"method.{stage}.alpha is {alpha}: give 0 or more, or a list of such weights, each once"
        )
    return values


def check_alpha_size(
    alpha: float | Sequence[float], size: float, shape: Sequence[int], stage: str
) -> None:
    """Refuse a size of no pixel at which several weights are compared.

    Args:
        shape: height and width of the image.

    Raises:
        ValueError: names the setting.
    """
    if len(alpha_values(alpha, stage)) == 1:
        return
    try:
        pixels(size, *shape)
    except ValueError as error:
        raise ValueError(f"method.{stage}.alpha_size: {error}") from error


@torch.no_grad()
def success_rate(
    network: Callable[[Tensor], Tensor],
    attach: Attach,
    images: Tensor,
    label: int,
    *,
    normalization: Normalization,
    batch_size: int,
) -> float:
    """The fraction of images that the network classifies as `label` once they carry a pattern.

    Args:
        network: from normalised images to logits, in eval mode.
        attach: overlays the pattern.
        images: byte images ``[n, C, H, W]``.
    """
    hits = 0
    for batch in images.split(batch_size):
        logits = finite_logits(network(normalization.normalize(attach(batch.float() / 255))))
        hits += int((logits.argmax(1) == label).sum())
    return hits / len(images)


def choose_alphas(
    success: Tensor, labels: Tensor, values: Sequence[float], classes: Sequence[str], stage: str
) -> Tensor:
    """The index of the weight of each canvas ``[n]``, the same for the canvases of a class.

    The weight of each class and the success rates that decide are logged.

    Args:
        success: the success rate on D_n of each weight and canvas ``[a, n]``.
        labels: the class of each canvas, ``[n]``.
        values: the weights.
        classes: the names of all classes.
    """
    chosen = best_weights(success, labels)
    for label in labels.unique().tolist():
        own = labels == label
        means = success[:, own].mean(1).tolist()
        log.info(
            "%s: alpha %g for class %r (success on the images of the search: %s)",
            stage, values[int(chosen[own][0])], classes[label],
            ", ".join(f"{m:.3g} with {v:g}" for v, m in zip(values, means, strict=True)),
        )  # fmt: skip
    return chosen
