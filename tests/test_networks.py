import pytest
import torch
from torch import nn

from cwx.networks.convnet import ConvNet, instance_norm
from cwx.networks.modes import accuracy, evaluating


def convnet(size=(32, 32), **settings):
    chosen = {"depth": 3, "width": 128, "norm": instance_norm, **settings}
    return ConvNet(in_channels=3, image_size=size, num_classes=10, **chosen)


def test_the_convnet_of_the_paper_has_320010_parameters():
    # 3 -> 128 -> 128 -> 128 by 3x3, three affine norms, 2048 -> 10.
    assert sum(p.numel() for p in convnet().parameters()) == 320_010


def test_a_convnet_too_deep_for_its_images_is_refused():
    with pytest.raises(ValueError, match="use a depth of at most 3"):
        convnet(size=(8, 9), depth=4)


@pytest.mark.parametrize("norm", [instance_norm, nn.BatchNorm2d, None])
def test_every_size_gives_logits(norm):
    for size in ((8, 8), (28, 28), (9, 17)):
        logits = convnet(size=size, norm=norm)(torch.zeros(2, 3, *size))
        assert logits.shape == (2, 10)


def test_modes_are_given_back_also_after_an_exception():
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    network[0].eval()
    with evaluating(network):
        assert not any(m.training for m in network.modules())
    with pytest.raises(KeyError), evaluating(network):
        raise KeyError
    assert [m.training for m in network.modules()] == [True, False, True]


def test_accuracy_counts_images_not_batches():
    batches = [(torch.eye(2), torch.tensor([0, 1]), 2), (torch.eye(2)[:1], torch.tensor([1]), 1)]
    assert accuracy(nn.Identity(), batches) == pytest.approx(2 / 3)
