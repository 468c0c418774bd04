"""A rank decodes only the images of its own batches, if images stay in files."""

from functools import partial

import pytest
import torch
from support.builders import image_data, small_convnet
from support.encoded_images import image_tree
from support.pictures import UNSET

from cwx.data.corruption import Backdoor
from cwx.data.datasets.folders import ImageFolder
from cwx.data.streamed_images import StreamedImages
from cwx.evaluations.backdoor.attack_success import attacked_images
from cwx.evaluations.patterns.distortions import Noise
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.predictions import divided_accuracy, divided_logits
from cwx.evaluations.traces.influence import strongest_images
from cwx.functional.backdoor import AllToOne, Patch
from cwx.functional.rng import stream
from cwx.functional.top_activations import spatial_maximum
from cwx.networks.unit_layers import UnitLayers
from cwx.training.ranks import Ranks
from cwx.training.subject import Subject

PATCH = Patch(size=3, corner="top-left", margin=0, first_pixel="white")
RANKS = Ranks(1, 3)


@pytest.fixture
def subject(tmp_path):
    source = ImageFolder(root=str(image_tree(tmp_path / "images")), **{**UNSET, "size": 8})
    settings = {"mean": 0.5, "std": 0.25, "workers": 0, "manifests": str(tmp_path)}
    data = image_data(source, storage="disk", batch_size=4, **settings)
    data.corrupt(Backdoor(trigger=PATCH, target=1, rate=0.3, variant=AllToOne(), seed=2))
    return Subject(
        data=data,
        factory=small_convnet,
        trajectories=[],
        held_out=[],
        evaluation_networks={},
        ranks=RANKS,
    )


@pytest.fixture
def decoded(monkeypatch):
    """The numbers of images that are decoded; this rank computes, the others have the same."""
    numbers = []
    read = StreamedImages._read

    def spy(images, positions, decode):
        numbers.append(len(positions))
        return read(images, positions, decode)

    monkeypatch.setattr(StreamedImages, "_read", spy)
    monkeypatch.setattr(Ranks, "collect", lambda ranks, compute: [compute()] * ranks.count)
    return numbers


def attack(subject, network):
    images = attacked_images(subject.data.corrupted.backdoor, subject.data.splits.test)
    divided_accuracy(subject, network, images)


def strongest(subject, network):
    (layer, *_) = UnitLayers(network, subject.data.image_shape, before_nonlinearity=False).all("")
    settings = {"activation": spatial_maximum, "fraction": 0.2}
    strongest_images(network, layer, [0, 2], subject, **settings)


# What is measured, and the images of the second rank: 18 test images in batches of 4, 4, 4, 4, 2,
# or the 12 of other classes than the target.
MEASURED = {
    "logits": (divided_logits, 6),
    "accuracy": (lambda s, network: divided_accuracy(s, network, s.data.splits.test), 6),
    "attack": (attack, 4),
    "top images": (strongest, 6),
    "patterns": (lambda subject, network: Probe(subject, network, subject.data.splits.test), 6),
}


@pytest.mark.parametrize("name", MEASURED)
def test_a_rank_decodes_its_own_batches(subject, decoded, name):
    network = subject.network().eval()
    measure, expected = MEASURED[name]
    measure(subject, network)
    assert sum(decoded) == expected


def test_noise_is_that_of_the_batch_on_any_rank(subject, decoded):
    """The draws for the batches of other ranks are passed over."""
    network, test = subject.network().eval(), subject.data.splits.test
    probe = Probe(subject, network, test)
    seen = []
    noise = Noise(30.0, stream(3), before=lambda images: images)
    monitored = partial(_observe, seen, noise)
    monitored.skip = noise.skip
    probe.predict_classes(monitored)
    generator = stream(3)
    unit = test.images[:].float() / 255
    everything = [Noise(30.0, generator)(batch) for batch in unit.split(4)]
    assert len(seen) == 2
    for own, expected in zip(seen, everything[1::3], strict=True):
        assert torch.equal(own, expected)


def _observe(seen, noise, images):
    seen.append(noise(images))
    return seen[-1]
