"""Which networks fit which data, and at which epoch they are shown."""

import re

import pytest
import torch
from conftest import small_mlp
from torch import nn

from cwx.subject import check_outputs


def convolutions(channels):
    return lambda **_: nn.Sequential(
        nn.Conv2d(channels, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class Answers(nn.Module):
    """Gives `answer` for any images."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def answers(answer):
    return lambda **_: Answers(answer)


@pytest.mark.parametrize("factory", [small_mlp, convolutions(2), answers(torch.zeros(2, 3))])
def test_a_network_that_fits_passes(data, factory):
    check_outputs("network", factory, data)


IMAGES = "does not take the data's images of 2 channels and 4x4 pixels"
REMEDY = "bring these to what it was made for (data.source.channels, data.source.size), or choose"
UNFIT = {
    "channels": (
        convolutions(3),
        f"network (Sequential for images of 3 channels) {IMAGES} (Given groups=1, weight of",
    ),
    "size": (
        lambda **_: nn.Sequential(nn.Conv2d(2, 3, 7)),
        "(Sequential for images of 2 channels) does not take the data's images of 2 channels",
    ),
    "an assertion": (answers(AssertionError("Wrong image height!")), f"{IMAGES} (Wrong image"),
    "no reason": (answers(AssertionError()), f"{IMAGES} (AssertionError): {REMEDY}"),
    "many lines": (answers(RuntimeError("no\nway")), f"{IMAGES} (no): {REMEDY}"),
    "too few logits": (
        answers(torch.zeros(2, 2)),
        "network gives outputs of shape (2, 2) for two images, and the data have 3",
    ),
    "a map": (answers(torch.zeros(2, 3, 4, 4)), "gives outputs of shape (2, 3, 4, 4)"),
    "no tensor": (answers({"out": torch.zeros(2, 3)}), "gives outputs of shape dict"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_network_that_does_not_fit_the_data_is_refused(data, case):
    factory, message = UNFIT[case]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check_outputs("network", factory, data)
    assert "\n" not in str(caught.value)
