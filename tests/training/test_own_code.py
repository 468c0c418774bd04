"""The user's own code is a part of the identity of what it trains."""

import importlib
import sys

import pytest
from support.builders import image_data, training

from cwx.training.own_code import code_digest, own_code

NETWORK = '''
"""Networks of mine."""
from torch import nn

from parts import SLOPE
from shared.layers import head


def network(*, in_channels, num_classes, image_size):
    size = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.LeakyReLU(SLOPE), head(size, num_classes))
'''
FILES = {
    "networks_of_mine.py": NETWORK,
    "parts.py": "SLOPE = 0.1\n",
    "shared/__init__.py": "",
    "shared/layers.py": "from .sizes import WIDTH\nfrom torch import nn\nhead = nn.Linear\n",
    "shared/sizes.py": "WIDTH = 3\n",
    "unused.py": "X = 1\n",
}
SETTINGS = {"_target_": "networks_of_mine.network", "norm": {"_target_": "torch.nn.BatchNorm2d"}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    importlib.invalidate_caches()
    code_digest.cache_clear()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shared", "parts")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", [name for name in FILES if name != "unused.py"])
def test_a_change_of_a_file_changes_the_code(folder, name):
    before = own_code(SETTINGS)
    assert list(before) == ["networks_of_mine"]
    (folder / name).write_text(f"{FILES[name]}\nADDED = 1\n")
    # The process has imported what it has read.
    assert own_code(SETTINGS) == before
    code_digest.cache_clear()
    assert own_code(SETTINGS) != before


def test_comments_formatting_and_other_files_are_no_code(folder):
    before = own_code(SETTINGS)
    (folder / "networks_of_mine.py").write_text(f"# A remark.\n{NETWORK}\n\n# Another.\n")
    (folder / "unused.py").write_text("X = 2\n")
    code_digest.cache_clear()
    assert own_code(SETTINGS) == before


def test_the_code_of_a_package_is_known_by_its_module(folder):
    assert list(own_code([{"a": {"_target_": "shared.layers.head"}}])) == ["shared.layers"]


@pytest.mark.parametrize(
    "target",
    [
        "cwx.networks.resnet.ResNet",
        "torch.nn.BatchNorm2d",
        "torchvision.models.resnet18",
        "builtins.dict",
        "collections.abc.Mapping",
        "there.is.no.such.module",
        "nothing",
    ],
)
def test_installed_packages_are_known_by_their_paths(target):
    assert own_code({"_target_": target}) == {}


def test_the_store_keeps_networks_of_changed_code_apart(folder, tmp_path):
    import networks_of_mine

    data = image_data()

    def identity(settings):
        configuration = {"recipe": {}, "precision": {"experts": None}, "network": settings}
        provider = training(tmp_path / "store", configuration, network=networks_of_mine.network)
        return provider._common(networks_of_mine.network, settings, data, {})

    before, cwx_network = identity(SETTINGS), identity({"_target_": "cwx.networks.mlp.MLP"})
    assert "code" not in cwx_network
    (folder / "parts.py").write_text("SLOPE = 0.2\n")
    code_digest.cache_clear()
    after = identity(SETTINGS)
    assert after["code"] != before["code"]
    assert {**after, "code": None} == {**before, "code": None}
