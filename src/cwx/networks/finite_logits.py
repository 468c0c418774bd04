"""Refusing logits that give no prediction.

The highest of logits of which one is NaN is, for `torch.argmax`, that one: a network that has
diverged would predict the first class, with an accuracy of chance.
"""

import torch
from torch import Tensor


class NotFiniteError(ValueError):
    """A network has no prediction for some images."""


def has_prediction(logits: Tensor) -> Tensor:
    """Whether the highest of the logits ``[…, K]`` of an image is a finite number, ``[…]``."""
    return logits.amax(-1).isfinite()


def finite_logits(logits: Tensor) -> Tensor:
    """The logits ``[…, K]`` themselves.

    Raises:
        NotFiniteError: the highest logit of an image is NaN or infinite; with the remedy.
    """
    has = has_prediction(logits)
    if not has.all():
        raise NotFiniteError(
            f"the outputs of a network for {int((~has).sum())} of {has.numel()} images are not "
            "finite, so that it predicts no class: lower recipe.optimizer.lr if it was trained "
            "here, or check its file and its normalisation (data.mean, data.std)"
        )
    return logits


def predicted(logits: Tensor) -> Tensor:
    """The class of the highest logit ``[…]``, of equal ones the first; -1 if it is not finite."""
    return torch.where(has_prediction(logits), logits.argmax(-1), -1)
