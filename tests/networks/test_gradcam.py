"""Grad-CAM maps equal the literal formula, for networks of every kind."""

import pytest
import torch
from support import references
from support.builders import small_mlp
from support.vision_networks import IMAGES, LABELS, NETWORKS, SHAPE, build_network

from cwx.networks.gradcam import attention_maps, grad_cam
from cwx.networks.layers import attention_layer

# Two functions of a network: images to the layer's output, and that of one image to logits.
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
def test_maps_equal_the_formula_of_the_paper(name):
    network = build_network(name)
    layer = network.get_submodule(attention_layer(network, IMAGES.shape[1:], None, "x"))
    maps = grad_cam(network, layer, IMAGES, LABELS)
    features, head = SPLIT[name]
    for image, label, actual in zip(IMAGES, LABELS.tolist(), maps, strict=True):
        low_resolution = references.grad_cam(
            head(network), features(network)(image[None])[0], label
        )
        expected = torch.tensor(references.upsample(low_resolution, 32, 32), dtype=torch.float64)
        torch.testing.assert_close(actual, expected)
    assert maps.amax((1, 2)).count_nonzero() > 0
    assert not maps.requires_grad
    assert not IMAGES.requires_grad


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_layer_is_the_last_spatial_one(name):
    network = build_network(name)
    layer = network.get_submodule(attention_layer(network, IMAGES.shape[1:], None, "x"))
    expected = NETWORKS[name][1]
    if expected:
        assert layer is network.get_submodule(expected)
    maps = grad_cam(network, layer, IMAGES, LABELS)
    assert maps.shape == (3, 32, 32)
    assert maps.isfinite().all()
    assert maps.min() >= 0


def test_maps_do_not_depend_on_the_batch_size():
    network = build_network("resnet")
    whole, parts = (
        attention_maps(network, network.blocks, IMAGES, LABELS, batch_size=size) for size in (3, 2)
    )
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("name", ["feature", "features.0x", "classifier", "features.3.x", ""])
def test_an_unknown_layer_is_refused_with_suggestions(name):
    with pytest.raises(ValueError, match=f"m.layer is '{name}', .* ConvNet .*: give .*features"):
        attention_layer(build_network("convnet"), IMAGES.shape[1:], name, "m.layer")


def test_a_layer_is_selected_by_name():
    network = build_network("convnet")
    assert attention_layer(network, IMAGES.shape[1:], "features.0", "x") == "features.0"


def test_a_network_without_spatial_layers_is_refused():
    with pytest.raises(ValueError, match="no layer of MLP gives maps.*leave method.gradcam out"):
        attention_layer(small_mlp(**SHAPE), IMAGES.shape[1:], None, "method.gradcam.layer")
