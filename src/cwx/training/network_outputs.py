"""Checks of what a network returns for images, before anything is trained.

Methods and evaluations take one float logit per class, as a function of the image alone.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# The images of the pass that shows whether an output depends on the batch.
_FEWER = 2


def check_eval_outputs(name: str, network: nn.Module, images: Tensor, classes: int) -> str | None:
    """Refuse outputs in eval mode that are no logits of the images.

    Args:
        name: of the network, for messages.
        network: in eval mode; it takes images of this shape.
        images: noise ``[3, C, H, W]``.
        classes: the number of classes.

    Returns:
        A remark on outputs that are accepted, or ``None``.

    Raises:
        ValueError: names what the network returns, and the remedy.
    """
    # Not a leaf, which must not change in place.
    inputs = images.clone().requires_grad_().clone()
    logits = _logits(name, network(inputs), len(images), classes, "")
    _require(
        torch.equal(inputs, images),
        f"{name} changes its input in place: let it work on a copy (images.clone(), inplace=False)",
    )
    _require(
        logits.requires_grad,
        f"{name} returns logits without gradients to the images: remove torch.no_grad() and "
        "detach() from its forward",
    )
    with torch.no_grad():
        again, fewer = network(images.clone()), network(images[:_FEWER].clone())
    _require(
        _are_close(again, logits),
        f"{name} returns other logits for the same images in a second pass in eval mode: dropout "
        "or noise is live; use nn.Dropout, or F.dropout(x, training=self.training)",
    )
    _require(
        _are_close(fewer, logits[:_FEWER]),
        f"{name} returns other logits for an image if other images are in its batch, in eval mode: "
        "statistics of the batch are live; use track_running_stats=True and do not set train() "
        "in its forward",
    )
    return _check_no_probabilities(name, network, logits.detach(), images)


def check_train_outputs(name: str, network: nn.Module, images: Tensor, classes: int) -> None:
    """Refuse outputs in training mode that are no logits.

    Args:
        network: in training mode; its running statistics change.

    Raises:
        ValueError: names what the network returns, and the remedy.
    """
    _logits(name, network(images), len(images), classes, " in training mode")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _logits(name: str, output: Any, count: int, classes: int, mode: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{name} returns {_describe(output)}{mode}: it must return one logit per class; "
            f"{_remedy(output)}"
        )
    shape = tuple(output.shape)
    if shape != (count, classes):
        spatial = output.ndim > 2 and shape[:2] == (count, classes) and output[0, 0].numel() == 1
        remedy = ": end it with flatten(1)" if spatial else " (num_classes)"
        raise ValueError(
            f"{name} returns outputs of shape {shape}{mode} for {count} images, but the data have "
            f"{classes} classes: it must return one logit per class{remedy}"
        )
    if output.dtype != torch.float32:
        raise ValueError(
            f"{name} returns outputs of {output.dtype}{mode}: it must return logits of "
            "torch.float32 (.float(), without argmax)"
        )
    if not output.isfinite().all():
        raise ValueError(
            f"{name} returns outputs that are not finite{mode}, for images of noise: check its "
            "initialisation and its normalisation layers"
        )
    return output


def _describe(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        fields = getattr(output, "_fields", None) or [type(item).__name__ for item in output]
        return f"a {type(output).__name__} of {', '.join(fields)}"
    return f"a {type(output).__name__}"


def _remedy(output: Any) -> str:
    if "aux_logits" in getattr(output, "_fields", ()):
        return (
            "build it without auxiliary classifiers (+network.build.aux_logits=false "
            "+network.build.init_weights=true, for torchvision's)"
        )
    key = next((k for k in ("logits", "out", "output") if _has(output, k)), None)
    item = f"its {key!r}" if key else "the logits"
    return f"set network.build._target_ to a network that returns {item} alone"


def _has(output: Any, key: str) -> bool:
    return key in output if isinstance(output, Mapping) else hasattr(output, key)


def _are_close(first: Tensor, second: Tensor) -> bool:
    # Sums in another order differ by rounding.
    scale = max(1.0, second.abs().max().item())
    return (first - second).abs().max().item() <= 1e-3 * scale


def are_probabilities(outputs: Tensor) -> bool:
    """Whether the rows of outputs ``[n, classes]`` are not negative and sum to 1."""
    return bool((outputs >= 0).all() and (outputs.sum(1) - 1).abs().max() < 1e-4)


def _check_no_probabilities(
    name: str, network: nn.Module, logits: Tensor, images: Tensor
) -> str | None:
    if are_probabilities(logits):
        raise ValueError(
            f"{name} returns probabilities (each row sums to 1): it must return logits; leave out "
            "its softmax, or return their logarithm"
        )
    if logits.logsumexp(1).abs().max() < 1e-4:
        return (
            f"{name} returns logarithms of probabilities, which are logits up to a number per "
            "image: predictions, losses and probabilities are those of its logits; what maximises "
            "a logit (activation, Grad-CAM) maximises the log-probability"
        )
    if (logits >= 0).all() and (logits <= 1).all() and _stay_in_unit(network, logits, images):
        raise ValueError(
            f"{name} returns numbers in 0-1 whatever its weights are, as of a sigmoid: it must "
            "return logits; leave out the last activation"
        )
    return None


@torch.no_grad()
def _stay_in_unit(network: nn.Module, logits: Tensor, images: Tensor) -> bool:
    """Whether outputs in 0-1 remain there if the weights of the last layer are large."""
    last: list[nn.Module] = []

    def note(module: nn.Module, *_: Any) -> None:
        last.append(module)

    weighted = [m for m in network.modules() if isinstance(getattr(m, "weight", None), Tensor)]
    hooks = [module.register_forward_hook(note) for module in weighted]
    try:
        network(images)
        if not last or not logits.any():
            return False
        head = last[-1]
        weights = [parameter.clone() for parameter in head.parameters(recurse=False)]
        for parameter in head.parameters(recurse=False):
            parameter.mul_(1000)
        outputs = network(images)
        for parameter, weight in zip(head.parameters(recurse=False), weights, strict=True):
            parameter.copy_(weight)
    finally:
        for hook in hooks:
            hook.remove()
    return bool((outputs >= 0).all() and (outputs <= 1).all())
