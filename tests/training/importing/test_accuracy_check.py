"""Imported networks whose size, normalisation, channels or order of classes do not fit."""

import logging
import re
from copy import deepcopy
from functools import cache

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from cwx.data import usual_sizes
from cwx.data.datamodule import ImageData
from cwx.data.datasets.folders import ClassFolders, ImageFolder
from cwx.data.splits import ImageSet, Splits
from cwx.training.importing.accuracy_check import check_accuracy

CPU = torch.device("cpu")
# The last class is the digit 3, transposed.
NAMES = tuple(str(index) for index in range(11))
AS_TEXT = sorted(NAMES)


@pytest.fixture(scope="module")
def digits():
    """Training and test images in bytes, of 11 classes."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images * 255 / 16).round().byte().view(-1, 1, 8, 8)
    labels = torch.tensor(labels)
    three = labels == 3
    images = torch.cat([images, images[three].transpose(2, 3)])
    labels = torch.cat([labels, torch.full((int(three.sum()),), 10)])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    whole = ImageSet(images, labels).at(order)
    return whole.at(torch.arange(1400)), whole.at(torch.arange(1400, len(order)))


class Pooled(nn.Module):
    """Takes images of any size, as published networks do."""

    def __init__(self, channels=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, 24, 3, padding=1)
        self.head = nn.Linear(24 * 16, 11)

    def forward(self, images):
        return self.head(F.adaptive_avg_pool2d(self.conv(images).relu(), 4).flatten(1))


@pytest.fixture(scope="module")
def trained(digits):
    """Trains a network on the digits, passed through `inputs`, with other labels."""

    @cache
    def train(inputs, outputs=None, channels=1):
        torch.manual_seed(0)
        network = Pooled(channels)
        images, labels = digits[0].images.float() / 255, digits[0].labels
        images = images.expand(-1, channels, -1, -1)
        labels = labels if outputs is None else outputs[labels]
        optimizer = torch.optim.Adam(network.parameters(), 0.01)
        for batch in torch.randperm(1400).repeat(12).split(100):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs(images[batch])), labels[batch]).backward()
            optimizer.step()
        return network

    return train


class Fixed:
    def __init__(self, test, names):
        self.test, self.names = test, names

    def load(self):
        return Splits(self.test.empty(), self.test, tuple(self.names))


def image_data(test, names=NAMES, mean=0.5, std=0.5, source=None):
    source = source or Fixed(test, names)
    data = ImageData(source=source, mean=mean, std=std, batch_size=100, per_class=None, total=None)
    data.setup()
    return data


def tinted(images):
    """Three channels that differ, so that their order matters."""
    return images * torch.tensor([1.0, 0.6, 0.2]).view(3, 1, 1) + torch.tensor(
        [0.0, 0.1, 0.8]
    ).view(3, 1, 1)


def unit(images):
    return images


def centred(images):
    return images * 2 - 1


PERMUTATION = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 10, 8, 7])
MISFITS = {
    "text order": (
        centred, torch.tensor([AS_TEXT.index(name) for name in NAMES]), {},
        r"its outputs sorted as text: use data.source.classes=<file>, a text file with a line for "
        r"each of 0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9, or set experts.check_accuracy=false",
    ),
    "another order": (
        centred, PERMUTATION, {},
        r"its outputs in another order: use data.source.classes=<file>, a text file with a line "
        r"for each of 3, 1, 6, 0, 2, 4, 7, 10, 9, 5, 8, or",
    ),
    "bytes": (lambda x: 255 * x, None, {}, r"pixels in 0-255: use data.mean=0 data.std=0.003922"),
    "inverted": (
        lambda x: centred(1 - x), None, {},
        r"with inverted pixels: use inverted images \(255 minus each value\), or",
    ),
    "normalised twice": (
        unit, None, {"mean": 0.9, "std": 0.1},
        r"none \(pixels in 0-1\).*: use (.*; or )?data.mean=0 data.std=1[,;]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_a_network_that_another_use_would_make_far_better_is_refused(digits, trained, case):
    inputs, outputs, settings, message = MISFITS[case]
    data = image_data(digits[1], **settings)
    network = trained(inputs, outputs)
    with pytest.raises(ValueError, match=message) as refused:
        check_accuracy("net.pt", network, data, CPU)
    text = str(refused.value)
    now, better = (float(n) for n in re.findall(r"(?:is|but) (\d\.\d+)", text))
    assert better > 0.8 > now
    assert re.search(r"on \d+ test images", text)
    assert "\n" not in text


def test_reversed_channels_are_recognised(digits, trained):
    test = digits[1]
    colour = (tinted(test.images.expand(-1, 3, -1, -1) / 255.0) * 255).clamp(0, 255).byte()
    network = trained(lambda x: tinted(x).clamp(0, 1).flip(1) * 2 - 1, channels=3)
    with pytest.raises(ValueError, match="with the channels as blue, green, red: use weights"):
        check_accuracy("net.pt", network, image_data(ImageSet(colour, test.labels)), CPU)


def test_a_network_that_fits_passes(digits, trained, caplog):
    caplog.set_level(logging.INFO)
    network = trained(centred)
    check_accuracy("net.pt", network, image_data(digits[1]), CPU)
    assert re.search(r"net.pt: accuracy 0.9\d+ on 512 test images", caplog.text)


def test_a_network_that_was_trained_badly_is_not_refused(digits, trained):
    """It knows some of the classes only: no other use is better, and it is above chance."""
    network = deepcopy(trained(centred))
    nn.init.zeros_(network.head.weight[:4].data)
    check_accuracy("net.pt", network, image_data(digits[1]), CPU)


def test_a_network_at_chance_is_refused_with_what_it_predicts(digits):
    network = Pooled()
    nn.init.zeros_(network.head.weight)
    network.head.bias.data[7] = 1
    message = r"at chance for 11 classes \(100% are classified as '7'\), and \d+ other usual"
    with pytest.raises(ValueError, match=message):
        check_accuracy("net.pt", network, image_data(digits[1]), CPU)


def test_too_few_images_are_said_to_tell_nothing(digits, caplog):
    few = digits[1].at(torch.arange(4))
    check_accuracy("net.pt", Pooled(), image_data(few), CPU)
    assert "4 test images are too few to tell its accuracy from chance" in caplog.text


def test_outputs_that_are_not_finite_are_refused(digits):
    network = Pooled()
    network.head.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="net.pt: its outputs for these images are not finite"):
        check_accuracy("net.pt", network, image_data(digits[1]), CPU)


def write_images(root, images):
    """Write each image into the folder of its class."""
    for index, (image, label) in enumerate(zip(*vars(images).values(), strict=True)):
        folder = root / NAMES[int(label)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"{index}.png")


def test_another_size_is_found_for_folders_of_images(digits, trained, tmp_path, monkeypatch):
    """Resized to 28 and cropped to 8, only the centre of a digit is left."""
    # Large images take long.
    monkeypatch.setattr(usual_sizes, "_SIDES", (28, 32))
    monkeypatch.setattr(usual_sizes, "_CROPS", ())
    test = digits[1].at(torch.arange(200))
    write_images(tmp_path, test)

    def folders(resize):
        return ClassFolders(
            root=str(tmp_path),
            classes=None,
            size=8,
            resize=resize,
            channels=None,
            synsets=None,
            interpolation=None,
            background=None,
            white_level=None,
            images=None,
        )

    network = trained(centred)
    check_accuracy("net.pt", network, image_data(None, source=folders(None)), CPU)
    message = r"with data.source.size=\d+ data.source.resize=(null|9): use data.source.size=\d+"
    with pytest.raises(ValueError, match=message):
        check_accuracy("net.pt", network, image_data(None, source=folders(28)), CPU)


def test_another_size_is_found_for_folders_of_training_and_test_images(
    digits, trained, tmp_path, monkeypatch
):
    """At a side of 3 pixels, little of a digit is left."""
    monkeypatch.setattr(usual_sizes, "_SIDES", (8, 32))
    monkeypatch.setattr(usual_sizes, "_CROPS", ((8, 9),))
    for split, images in (("train", digits[0].at(torch.arange(60))), ("test", digits[1])):
        write_images(tmp_path / split, images)

    def folders(size):
        return ImageFolder(
            root=str(tmp_path),
            size=size,
            resize=None,
            channels=None,
            synsets=None,
            interpolation=None,
            background=None,
            white_level=None,
        )

    network = trained(centred)
    check_accuracy("net.pt", network, image_data(None, source=folders(8)), CPU)
    with pytest.raises(ValueError, match=r"with data\.source\.size=8 .*: use data\.source"):
        check_accuracy("net.pt", network, image_data(None, source=folders(3)), CPU)
