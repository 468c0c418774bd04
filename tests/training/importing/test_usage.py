"""How weights are used is found on the images."""

import os
import shutil
import zlib
from functools import cache

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from cwx.data.datasets.folder_preview import FolderPreview
from cwx.data.datasets.folders import ClassFolders
from cwx.functional.accuracy_tests import is_at_chance
from cwx.training.importing import usage as module
from cwx.training.importing.architecture import Architecture
from cwx.training.importing.usage import Stated, UsageSearch

# The last class is the digit 3, transposed.
NAMES = tuple(str(index) for index in range(11))
AS_TEXT = sorted(NAMES)


class Network(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16 * 16, 11)
        self.outputs = outputs

    def forward(self, images):
        maps = F.adaptive_avg_pool2d(self.conv(images).relu(), 4)
        return self.outputs(self.head(maps.flatten(1)))


@pytest.fixture(scope="module")
def digits():
    """Colour images of 11 classes whose channels differ, as bytes, and their labels."""
    images, labels = load_digits(return_X_y=True)
    grey = torch.tensor(images / 16).float().view(-1, 1, 8, 8)
    three = torch.tensor(labels) == 3
    grey = torch.cat([grey, grey[three].transpose(2, 3)])
    labels = torch.cat([torch.tensor(labels), torch.full((int(three.sum()),), 10)])
    tint = torch.tensor([0.8, 0.5, 0.2]).view(3, 1, 1)
    colour = grey * tint + torch.tensor([0.05, 0.1, 0.8]).view(3, 1, 1)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return (255 * colour).round().byte()[order], labels[order]


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """The last 400 images, one folder per class."""
    root = tmp_path_factory.mktemp("images")
    for index, (image, label) in enumerate(zip(digits[0][-400:], digits[1][-400:], strict=True)):
        path = root / NAMES[label]
        path.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path / f"{index:03}.png")
    return root


@pytest.fixture(scope="module")
def trained(digits):
    """Trains a network on the digits, passed through `inputs`, with other labels."""

    @cache
    def train(inputs, order=NAMES):
        torch.manual_seed(0)
        network = Network(unchanged)
        labels = torch.tensor([order.index(name) for name in NAMES])[digits[1]]
        rate = 0.001 if inputs is in_bytes else 0.01
        optimizer = torch.optim.Adam(network.parameters(), rate)
        for batch in torch.randperm(1500).repeat(10).split(100):
            optimizer.zero_grad()
            images = inputs(digits[0][batch].float() / 255)
            F.cross_entropy(network(images), labels[batch]).backward()
            optimizer.step()
        return network.state_dict()

    return train


def unchanged(x):
    return x


def centred(x):
    return 2 * x - 1


def in_bytes(x):
    return 255 * x


def of_imagenet(x):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def reversed_channels(x):
    return centred(x).flip(1)


def search(
    folder, state, *, outputs=unchanged, known=False, words=None, stated=None, twice=False, likely=8
):
    def architecture(description, likely_size):
        return Architecture(
            description=description,
            settings={},
            factory=lambda **_: Network(outputs),
            classes=11,
            channels=3,
            likely_size=likely_size,
        )

    candidates = [architecture("a", likely)] + ([architecture("b", 8)] if twice else [])
    networks = []
    for candidate in candidates:
        network = candidate.factory()
        network.load_state_dict(state)
        networks.append((candidate, network.eval()))
    source = ClassFolders(
        root=str(folder), classes=list(NAMES), size=None, resize=None, interpolation=None,
        channels=3, background=None, white_level=None, images=None, synsets=None,
    )  # fmt: skip
    return UsageSearch(
        architectures=networks,
        folder=FolderPreview(source),
        states_order=known,
        words=words or {},
        stated=stated or Stated(),
        device=torch.device("cpu"),
    ).run()


@pytest.mark.parametrize(
    ("inputs", "mean", "std"),
    [
        (centred, [0.5] * 3, [0.5] * 3),
        (in_bytes, [0.0] * 3, [1 / 255] * 3),
        (of_imagenet, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ],
)
def test_the_normalisation_is_found(folder, trained, inputs, mean, std):
    usage = search(folder, trained(inputs))
    ways = [usage.way, *usage.equal]
    fitting = [
        way
        for way in ways
        if way.inputs.normalization.mean == pytest.approx(mean)
        and way.inputs.normalization.std == pytest.approx(std)
    ]
    assert fitting, [way.row for way in ways]
    assert usage.way.accuracy > 0.85
    assert not usage.way.order_name
    assert not usage.is_at_chance


def test_the_order_of_the_channels_is_found(folder, trained):
    usage = search(folder, trained(reversed_channels))
    assert usage.way.inputs.is_reversed
    assert "blue" in usage.way.row["inputs"]


def test_a_usual_order_of_the_outputs_is_found(folder, trained):
    usage = search(folder, trained(centred, tuple(AS_TEXT)))
    assert usage.way.order == tuple(AS_TEXT)
    assert usage.way.order_name == "sorted as text"


PERMUTED = tuple(NAMES[i] for i in (3, 1, 4, 0, 5, 9, 2, 6, 10, 8, 7))


def test_any_other_order_is_fitted_to_half_of_the_images(folder, trained):
    way = search(folder, trained(centred, PERMUTED)).way
    assert way.order == PERMUTED
    assert way.is_measured.sum() <= len(way.is_measured) / 2 + 1
    assert way.accuracy > 0.85


def test_chance_is_tested_on_images_that_did_not_choose_the_order(folder, trained, monkeypatch):
    """Any predictions agree with the labels that chose the order of their classes."""
    compared = []

    def record(predictions, labels, classes):
        compared.append((predictions, labels))
        return is_at_chance(predictions, labels, classes)

    monkeypatch.setattr(module, "is_at_chance", record)
    for order, share in ((PERMUTED, 0.5), (NAMES, 1)):
        way = search(folder, trained(centred, order)).way
        predictions, labels = compared.pop()
        assert len(labels) == pytest.approx(share * len(way.is_measured), abs=1)
        assert torch.equal(predictions == labels, way.is_correct[way.is_measured])


def test_odd_files_are_no_images_of_a_size(folder, tmp_path):
    """A picture of too many pixels, and a pipe, from which nothing can ever be read."""
    source = ClassFolders(
        root=str(tmp_path), classes=["a", "b"], size=None, resize=None, interpolation=None,
        channels=3, background=None, white_level=None, images=None, synsets=None,
    )  # fmt: skip
    for name in ("a", "b"):
        shutil.copytree(folder / "1", tmp_path / name)
    assert FolderPreview(source).side == 8
    pipe = tmp_path / "a" / "pipe.png"
    os.mkfifo(pipe)
    assert FolderPreview(source).side is None
    pipe.unlink()
    content = bytearray(next((folder / "1").iterdir()).read_bytes())
    # Width and height of a PNG, and the checksum of their chunk.
    content[16:24] = (60000).to_bytes(4) * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    (tmp_path / "a" / "bomb.png").write_bytes(content)
    assert FolderPreview(source).side is None


def test_a_network_that_takes_no_such_images_is_refused_in_a_sentence(folder, trained):
    def too_large(x):
        raise IndexError("index 224 is out of range")

    for twice in (False, True):
        with pytest.raises(ValueError, match=r"does not take the images \(index 224 is out"):
            search(folder, trained(centred), outputs=too_large, twice=twice)


def test_a_known_order_is_not_permuted(folder, trained):
    usage = search(folder, trained(centred, PERMUTED), known=True)
    assert usage.way.order is None
    assert usage.way.accuracy < 0.5


def test_what_the_user_and_the_file_state_is_not_tried(folder, trained):
    stated = Stated(mean=[0.5] * 3, std=[0.5] * 3, size=8)
    usage = search(folder, trained(in_bytes), stated=stated)
    assert {way.row["normalisation"] for way in usage.ways} == {"stated"}
    words = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3, "size": (8, 8)}
    usage = search(folder, trained(in_bytes), words=words)
    assert {way.row["normalisation"] for way in usage.ways} == {"of the file"}
    assert usage.way.size == 8
    assert usage.way.accuracy > 0.85


@pytest.mark.parametrize(("inputs", "value"), [(unchanged, (0.0, 1.0)), (centred, (0.5, 0.5))])
def test_values_of_tensors_may_be_applied_by_the_network_itself(folder, trained, inputs, value):
    """Such as those of a first layer; then they must not be applied twice."""
    words = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "normalization_tensors": ("mean", "std")}
    usage = search(folder, trained(inputs), words=words)
    mean, std = value
    normalization = usage.way.inputs.normalization
    assert normalization.mean == pytest.approx([mean] * 3)
    assert normalization.std == pytest.approx([std] * 3)
    assert usage.way.accuracy > 0.85


@pytest.mark.parametrize(
    ("outputs", "output", "probabilities"),
    [
        (lambda x: x.softmax(1), None, True),
        (lambda x: (None, x), 1, False),
        (lambda x: {"features": x[:, :4], "logits": x.softmax(1)}, "logits", True),
    ],
)
def test_the_form_of_the_output_is_found(folder, trained, outputs, output, probabilities):
    usage = search(folder, trained(centred), outputs=outputs)
    assert usage.way.form.settings == {"output": output, "probabilities": probabilities}
    assert usage.way.accuracy > 0.85


def test_an_output_without_a_number_per_class_is_refused(folder, trained):
    with pytest.raises(ValueError, match="without one number for each of 11 classes"):
        search(folder, trained(centred), outputs=lambda x: x[:, :7])


def test_untrained_weights_are_at_chance(folder):
    torch.manual_seed(3)
    usage = search(folder, Network(unchanged).state_dict(), known=True)
    assert usage.is_at_chance


def test_architectures_that_do_not_differ_on_the_images_are_equal(folder, trained):
    usage = search(folder, trained(centred), twice=True)
    others = [way.architecture.description for way in usage.equal]
    assert {usage.way.architecture.description, *others} == {"a", "b"}


def test_large_and_small_images_are_compared_on_the_same_images(folder, trained, monkeypatch):
    monkeypatch.setattr(module, "_FINALISTS", 100)
    monkeypatch.setattr(module, "is_equal", lambda *_: True)
    usage = search(folder, trained(centred), likely=96)
    assert {way.size for way in usage.ways} > {None}
    assert len({len(way.is_correct) for way in usage.ways}) == 1
    assert usage.way.accuracy > 0.85


def test_one_value_is_that_of_every_channel(folder, trained):
    stated = Stated(mean=[0.5], std=[0.5], size=8)
    normalization = search(folder, trained(centred), stated=stated).way.inputs.normalization
    assert normalization.mean == normalization.std == (0.5,) * 3
    words = {"mean": (0.0,), "std": (1 / 255,)}
    normalization = search(folder, trained(in_bytes), words=words).way.inputs.normalization
    assert len(normalization.mean) == len(normalization.std) == 3


def test_values_of_other_channels_are_refused_or_not_used(folder, trained):
    stated = Stated(mean=[0.5, 0.5], std=[0.5, 0.5], size=8)
    with pytest.raises(ValueError, match="--mean and --std have 2 and 2 values.*3 channels"):
        search(folder, trained(centred), stated=stated)
    words = {"mean": (0.1, 0.2), "std": (0.3, 0.4)}
    usage = search(folder, trained(centred), words=words)
    assert "of the file" not in {way.row["normalisation"] for way in usage.ways}
