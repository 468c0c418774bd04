"""Grad-CAM against its formulas, on networks of every kind."""

import pytest
import torch
from support import references
from support.builders import small_mlp
from support.vision_networks import IMAGES, LABELS, NETWORKS, SHAPE, built

from cwx.networks.gradcam import attention_of, grad_cam
from cwx.networks.layers import attended_layer

# From images to what the layer gives, and from that, of one image, to its logits.
SPLIT = {
    "convnet": (
        lambda net: net.features,
        lambda net: lambda a: net.classifier(a.flatten()),
    ),
    "resnet": (
        lambda net: lambda images: net.blocks(net.stem(images)),
        lambda net: lambda a: net.classifier(a.mean((1, 2))),
    ),
    "external": (lambda net: net.features, lambda net: lambda a: net.classify(a[None])[0]),
}


@pytest.mark.parametrize("name", SPLIT)
def test_the_map_is_that_of_the_paper(name):
    network = built(name)
    layer = network.get_submodule(attended_layer(network, IMAGES.shape[1:], None, "x"))
    found = grad_cam(network, layer, IMAGES, LABELS)
    features, head = SPLIT[name]
    for image, label, values in zip(IMAGES, LABELS.tolist(), found, strict=True):
        small = references.grad_cam(head(network), features(network)(image[None])[0], label)
        expected = torch.tensor(references.upsampled(small, 32, 32), dtype=torch.float64)
        torch.testing.assert_close(values, expected)
    assert found.amax((1, 2)).count_nonzero() > 0
    assert not found.requires_grad
    assert not IMAGES.requires_grad


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_layer_with_places_is_found_in_any_network(name):
    network = built(name)
    layer = network.get_submodule(attended_layer(network, IMAGES.shape[1:], None, "x"))
    expected = NETWORKS[name][1]
    if expected:
        assert layer is network.get_submodule(expected)
    found = grad_cam(network, layer, IMAGES, LABELS)
    assert found.shape == (3, 32, 32)
    assert found.isfinite().all()
    assert found.min() >= 0


def test_batches_do_not_change_maps():
    network = built("resnet")
    whole, parts = (
        attention_of(network, network.blocks, IMAGES, LABELS, batch_size=size) for size in (3, 2)
    )
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("name", ["feature", "features.0x", "classifier", "features.3.x", ""])
def test_a_wrong_layer_is_answered_with_the_nearest(name):
    with pytest.raises(ValueError, match=f"m.layer is '{name}', .* ConvNet .*: give .*features"):
        attended_layer(built("convnet"), IMAGES.shape[1:], name, "m.layer")


def test_a_layer_is_taken_by_name():
    network = built("convnet")
    assert attended_layer(network, IMAGES.shape[1:], "features.0", "x") == "features.0"


def test_a_network_without_places_is_refused():
    with pytest.raises(ValueError, match="no layer of MLP gives maps.*leave method.gradcam out"):
        attended_layer(small_mlp(**SHAPE), IMAGES.shape[1:], None, "method.gradcam.layer")
