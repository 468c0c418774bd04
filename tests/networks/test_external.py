"""Networks of other packages, with adapted inputs and outputs."""

from collections import namedtuple
from copy import deepcopy

import pytest
import torch
from torch import nn

from cwx.networks.external import external

Result = namedtuple("Result", "aux logits")
PLAIN = {"output": None, "probabilities": False, "reverse_channels": False}
SHAPE = {"in_channels": 3, "image_size": (4, 4), "num_classes": 5}


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(48, 5)
        self.wrap = wrap

    def forward(self, images):
        return self.wrap(self.head(images.flatten(1)))


def build(wrap, **settings):
    return external(build=lambda: Wrapped(wrap), **{**PLAIN, **settings}, **SHAPE)


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda x: {"loss": 0, "logits": x}, "logits"),
        (lambda x: (x, None), 0),
        (lambda x: Result(None, x), "logits"),
        (lambda x: Result(None, x), 1),
    ],
)
def test_a_part_of_the_output_is_selected(wrap, output):
    images = torch.rand(2, 3, 4, 4)
    network = build(wrap, output=output)
    assert torch.equal(network(images), build(lambda x: x)(images))
    # The names of the weights stay, also in a copy.
    assert list(deepcopy(network).state_dict()) == ["head.weight", "head.bias"]
    assert torch.equal(deepcopy(network)(images), network(images))


def test_probabilities_become_logarithms():
    images = torch.rand(2, 3, 4, 4)
    logits = build(lambda x: x.softmax(1), probabilities=True)(images)
    assert torch.allclose(logits, build(lambda x: x)(images).log_softmax(1), atol=1e-6)
    zeros = build(lambda x: x.softmax(1) * 0, probabilities=True)(images.requires_grad_())
    zeros.sum().backward()
    assert zeros.isfinite().all()
    assert images.grad.isfinite().all()


def test_channels_are_reversed():
    images = torch.rand(2, 3, 4, 4)
    network = build(lambda x: x, reverse_channels=True)
    assert torch.equal(network(images.flip(1)), build(lambda x: x)(images))


@pytest.mark.parametrize("output", ["logits", 3])
def test_a_part_that_is_not_there_is_refused(output):
    with pytest.raises(ValueError, match=r"network\.output"):
        build(lambda x: (x,), output=output)(torch.rand(1, 3, 4, 4))
