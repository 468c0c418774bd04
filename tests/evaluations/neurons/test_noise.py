"""Noise instead of the attack: the norm of each image, and neurons that respond to none."""

import logging

import pytest
import torch
from support.attacked import adversarial_set, swapped
from torch import Tensor

from cwx.data.adversarial_set import AdversarialSet
from cwx.evaluations.neurons.noise import NoiseImages
from cwx.evaluations.neurons.responses import AdversarialTop, layer_responses, mean_of
from cwx.evaluations.neurons.top_images import normalized_batches
from cwx.functional.top_activations import TopActivations
from cwx.networks.unit_layers import UnitLayer
from cwx.training.ranks import Ranks


def norms(images: Tensor, adversarial: AdversarialSet, test) -> Tensor:
    originals = test.images[adversarial.originals]
    return (images.double() - originals.double()).flatten(1).norm(dim=1)


def made(adversarial: AdversarialSet, test, **settings) -> Tensor:
    batches = NoiseImages(adversarial, test).batches(**{"size": 7, **settings})
    return torch.cat([images for _, images in batches])


def test_each_noise_image_has_the_norm_of_its_perturbation(data, tmp_path):
    test = data.splits.test
    adversarial = swapped(data, tmp_path)
    noisy = made(adversarial, test)
    attacked = adversarial.at(torch.arange(len(adversarial)))
    expected = norms(attacked, adversarial, test)
    torch.testing.assert_close(norms(noisy, adversarial, test), expected, rtol=0.02, atol=1)
    assert not torch.equal(noisy, attacked)


def test_noise_depends_on_the_index_alone(data, tmp_path):
    test = data.splits.test
    first, other = (made(swapped(data, tmp_path / str(size), size=size), test) for size in (5, 24))
    assert torch.equal(first, other)


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_make_the_noise_of_the_batches_that_they_read(data, tmp_path, count):
    """Files of 5 images, in batches of 3 and 2, are dealt out as those of the attack."""
    adversarial, test = swapped(data, tmp_path), data.splits.test
    alone = made(adversarial, test)
    parts = [part for _, part in adversarial.batches()]
    for index in range(count):
        ranks = Ranks(index, count)
        own = list(NoiseImages(adversarial, test).batches(size=3, ranks=ranks))
        device = torch.device("cpu")
        read = normalized_batches(parts, data.normalization, size=3, device=device, ranks=ranks)
        for (indices, images), (expected, _) in zip(own, read, strict=True):
            assert torch.equal(indices, expected)
            assert torch.equal(images, alone[indices])


def test_noise_that_misses_the_norm_is_counted(data, tmp_path, caplog):
    """From black to white is farther than any noise, half of which goes beyond black."""
    test = data.splits.test
    images = 255 * (test.images < 128).to(torch.uint8)
    adversarial = adversarial_set(data, tmp_path, torch.arange(24), (test.labels + 1) % 3, images)
    with caplog.at_level(logging.WARNING, "cwx"):
        noise = NoiseImages(adversarial, test)
        list(noise.batches(size=7))
        assert not caplog.messages
        noise.warn()
    (message,) = caplog.messages
    assert "of 24 images differs from the norm of their perturbation by more than 1 %" in message


def top(*responding):
    """Neurons with one top image, the second of two; some do not respond."""
    threshold = torch.tensor([0.0 if responds else 1.0 for responds in responding])
    ones = torch.ones(1, len(responding))
    return TopActivations(values=ones, indices=ones.long(), threshold=threshold)


def test_a_neuron_without_response_to_noise_has_no_cs_of_noise():
    responses = layer_responses(
        UnitLayer(name="layer"),
        top(True, True),
        torch.tensor([0, 1]),
        AdversarialTop(
            top=top(True, True),
            noise=top(True, False),
            labels=torch.tensor([0, 1]),
            targets=torch.tensor([1, 0]),
        ),
        torch.eye(2).double(),
    )
    assert responses.responding.tolist() == [True, True]
    assert responses.values["cs1"].tolist() == [1, 1]
    assert responses.values["cs1_noise"].nan_to_num(-1).tolist() == [1, -1]
    assert responses.values["cs2_noise"].nan_to_num(-1).tolist() == [0, -1]
    assert mean_of(responses.values["cs1_noise"]) == 1
    assert mean_of(responses.values["cs1_noise"][1:]) is None


@pytest.mark.parametrize("values", [[], [torch.nan]])
def test_there_is_no_mean_of_nothing(values):
    assert mean_of(torch.tensor(values)) is None
