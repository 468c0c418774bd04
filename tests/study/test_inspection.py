"""From a file of weights and a folder of images to the settings of a study."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from support import weight_files
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from cwx.errors import UserError
from cwx.networks.published import ResNet
from cwx.study.inspection import Request, inspect
from cwx.study.unsupported_parts import unsupported_parts
from cwx.training.importing.usage import Stated

KIND = {"in_channels": 3, "stages": [1, 1], "width": 16, "shortcut": "shortcut", "head": "linear"}


def network(classes=10):
    torch.manual_seed(0)
    return ResNet(num_classes=classes, bottleneck=False, **KIND)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    grey = torch.tensor(images * 255 / 16).round().byte().view(-1, 1, 8, 8)
    # Of 16 pixels, as the network halves them.
    large = grey.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1)
    return large.contiguous(), torch.tensor(labels)


@pytest.fixture(scope="module")
def trained(digits):
    """A network for pixels in 0-1."""
    trained = network()
    optimizer = torch.optim.Adam(trained.parameters(), 0.003)
    for batch in torch.arange(1400).repeat(2).split(70):
        optimizer.zero_grad()
        F.cross_entropy(trained(digits[0][batch].float() / 255), digits[1][batch]).backward()
        optimizer.step()
    return trained.eval()


@pytest.fixture(scope="module")
def images(digits, tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for index in range(1400, 1797):
        folder = root / "test" / str(int(digits[1][index]))
        folder.mkdir(parents=True, exist_ok=True)
        pixels = digits[0][index].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (root / "train" / "0").mkdir(parents=True)
    return root


@pytest.fixture
def file(trained, tmp_path):
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_everything_is_found_from_the_two_paths(file, images):
    found = inspect(Request(weights=file, images=images))
    settings = found.settings
    # The folder of the test images.
    assert settings["data.source.root"] == str(images / "test")
    assert settings["network"] == "external"
    assert settings["network.build._target_"] == "cwx.networks.published.ResNet"
    assert settings["experts.checkpoints"] == [str(file)]
    assert found.ways[0]["accuracy"] > 0.7
    text = " ".join(found.notes)
    assert "Found: " in text
    assert "left out beside the weights: epoch" in text
    assert settings["notes"] == found.notes
    assert len(settings["data.mean"]) == len(settings["data.std"]) == 3


def test_what_is_stated_is_used(file, images):
    stated = Stated(mean=[0.0] * 3, std=[1.0] * 3, size=16)
    settings = inspect(Request(weights=file, images=images, stated=stated)).settings
    assert settings["data.mean"] == [0.0] * 3
    assert settings["data.std"] == [1.0] * 3
    assert settings["data.source.size"] == 16


def test_poisoned_test_images_beside_the_file_are_measured(trained, images, digits, tmp_path):
    weight_files.attack_result(
        trained, tmp_path, num_classes=10, images={4: 1, 7: 2}, target=0, data="mnist"
    )
    request = Request(
        weights=tmp_path, images=images, stated=Stated(mean=[0.0] * 3, std=[1.0] * 3, size=16)
    )
    (note,) = [note for note in inspect(request).notes if "poisoned test images" in note]
    assert note.startswith("Of 2 poisoned test images beside the file, the network classifies ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "is not there: name the folder of the images"),
        ("file", "is a file, not a folder"),
        ("one class", "has one class, 0"),
        ("more classes", "the network has 10 outputs, but the folder has 11 classes"),
        ("fewer classes", "name all 10 in the order of the outputs.*--classes"),
        ("few names", "names 9 classes, but the network has 10 outputs"),
        ("untrained", "at chance for 10 classes .*--classes .*--mean, --std"),
        ("unknown", "fits no known network.*--network"),
        ("no module", "--network nowhere.Net cannot be imported"),
        ("no class", "--network torch.nn.Linearr does not exist: did you mean torch.nn.Linear"),
        ("no network", "dict returns a dict, not a torch.nn.Module"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_remedy(file, images, tmp_path, change, message):
    root = tmp_path / "own"
    request = Request(weights=file, images=images)
    names = {"one class": ["0"], "fewer classes": ["x", "y"],
             "more classes": [*map(str, range(11))]}.get(change)  # fmt: skip
    for name in names or ():
        (root / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(root / name / "0.png")
    if names:
        request = replace(request, images=root)
    if change in ("missing", "file"):
        request = replace(request, images=root if change == "missing" else file)
    if change == "few names":
        (tmp_path / "names.txt").write_text("\n".join(map(str, range(9))))
        request = replace(request, classes=tmp_path / "names.txt")
    if change == "untrained":
        torch.save(network().state_dict(), file)
    if change == "unknown":
        torch.save({"a.weight": torch.zeros(3, 4), "a.bias": torch.zeros(3)}, file)
    target = {"no module": "nowhere.Net", "no class": "torch.nn.Linearr",
              "no network": "builtins.dict"}.get(change)  # fmt: skip
    with pytest.raises((UserError, ValueError), match=message) as caught:
        inspect(replace(request, network=target))
    assert "\n" not in str(caught.value)


def test_a_network_whose_module_lies_beside_the_file_is_named(trained, images, tmp_path):
    (tmp_path / "my_network_of_digits.py").write_text(
        "from cwx.networks.published import ResNet\n"
        "def build(num_classes):\n"
        "    return ResNet(in_channels=3, num_classes=num_classes, stages=[1, 1], width=16,\n"
        "                  shortcut='shortcut', head='linear', bottleneck=False)\n"
    )
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    target = "my_network_of_digits.build"
    request = Request(weights=tmp_path / "model.pt", images=images, network=target)
    found = inspect(request)
    assert found.settings["network.build._target_"] == target
    assert found.settings["network.build.num_classes"] == 10
    assert found.import_path == tmp_path


def test_parts_that_a_transformer_does_not_allow_are_left_out():
    transformer = VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=10).eval()
    reasons = unsupported_parts(transformer, (3, 32, 32))
    # Its neurons are the channels of MLPs and of the residual stream.
    assert set(reasons) == {"gradcam", "attention"}
    assert all("tokens" in reason for reason in reasons.values())
    assert unsupported_parts(network(), (3, 16, 16)) == {}


@pytest.mark.parametrize("data", ["cifar10", "gtsrb"])
def test_what_the_file_states_is_used_only_if_it_fits(trained, images, tmp_path, data):
    """The network takes pixels in 0-1: the normalisation of GTSRB is none."""
    weight_files.attack_result(
        trained, tmp_path, num_classes=10, data=data, img_size=[16, 16, 3], write=False
    )
    found = inspect(Request(weights=tmp_path, images=images))
    normalisation = found.ways[0]["normalisation"]
    assert found.ways[0]["accuracy"] > 0.7
    if data == "gtsrb":
        assert normalisation == "of the file"
    assert (normalisation == "of the file") != any("are not used" in note for note in found.notes)


def test_the_network_among_parts_is_found(trained, images, tmp_path):
    weight_files.parts(trained, tmp_path / "parts.pt")
    found = inspect(Request(weights=tmp_path / "parts.pt", images=images))
    assert found.ways[0]["accuracy"] > 0.7


def test_hostile_names_in_a_file_are_harmless_in_the_notes(trained, images, tmp_path):
    value = {"state_dict": trained.state_dict(), "${oc.env:HOME}\x1b[2J": 3}
    torch.save(value, tmp_path / "model.pt")
    found = inspect(Request(weights=tmp_path / "model.pt", images=images))
    text = " ".join(found.settings["notes"])
    assert "oc.env:HOME" in text
    assert "${" not in text
    assert text.isprintable()
