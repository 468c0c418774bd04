import re
from functools import partial
from types import SimpleNamespace

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from support.configurations import CONF
from torch import nn
from torchvision import models

from cwx.data.resizing import ResizingSource
from cwx.networks.external import external
from cwx.training.importing import preprocessing
from cwx.training.importing.preprocessing import (
    check_interpolation,
    interpolation_of_network,
    interpolation_of_weights,
)
from cwx.training.importing.published_weights import full_weights_name

BILINEAR = "ResNet50_Weights.IMAGENET1K_V2"
BICUBIC = "EfficientNet_B0_Weights.IMAGENET1K_V1"


class Stated(nn.Module):
    """A network as timm builds it."""

    def __init__(self, interpolation):
        super().__init__()
        self.pretrained_cfg = {"interpolation": interpolation, "crop_pct": 0.9}


def images(**source):
    return SimpleNamespace(source=SimpleNamespace(**{"fit": object(), **source}))


@pytest.fixture
def check(monkeypatch):
    monkeypatch.setattr(preprocessing, "build_network", lambda factory, *_, **__: factory())

    def check(checkpoint, network=nn.Identity, **source):
        data = images(**{"interpolation": None, **source})
        check_interpolation(data, {"network": [checkpoint]}, {"network": network})

    return check


def test_the_filters_are_those_of_torchvisions_presets():
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            stated = interpolation_of_weights(str(weights))
            assert stated == weights.transforms().interpolation.value


def test_torchvisions_files_are_recognised_by_their_content(tmp_path, monkeypatch):
    weights = models.get_weight(BICUBIC)
    digest = re.search(r"-([0-9a-f]{8})\.pth", weights.url)[1] + 56 * "0"
    (tmp_path / "renamed.pt").write_bytes(b"")
    monkeypatch.setattr(preprocessing, "file_digest", lambda *_: digest)
    assert interpolation_of_weights(str(tmp_path / "renamed.pt")) == "bicubic"
    monkeypatch.setattr(preprocessing, "file_digest", lambda *_: 64 * "0")
    assert interpolation_of_weights(str(tmp_path / "renamed.pt")) is None


@pytest.mark.parametrize("checkpoint", ["nowhere.pt", "X_Weights.Y", "ResNet50_Weights.V9"])
def test_unknown_weights_state_no_filter(checkpoint):
    assert interpolation_of_weights(checkpoint) is None


@pytest.mark.parametrize(
    ("network", "stated"),
    [(Stated("bicubic"), "bicubic"), (Stated("random"), None), (nn.Identity(), None)],
)
def test_networks_of_timm_state_their_filter(network, stated):
    assert interpolation_of_network(network) == stated


@pytest.mark.parametrize(
    ("checkpoint", "network"), [(BICUBIC, nn.Identity), ("own.pt", partial(Stated, "bicubic"))]
)
def test_weights_made_for_another_filter_than_the_default_are_refused(check, checkpoint, network):
    message = rf"weights {checkpoint} were made .* filter bicubic, .*set data\.source\.interpol"
    with pytest.raises(ValueError, match=message):
        check(checkpoint, network)
    # An explicit filter is the user's; without resizing, the filter does not matter.
    check(checkpoint, network, interpolation="bicubic")
    check(checkpoint, network, interpolation="bilinear")
    check(checkpoint, network, fit=None)


def test_weights_made_for_the_default_are_accepted(check):
    check(BILINEAR)
    check("own.pt")
    check("own.pt", partial(Stated, "bilinear"))


def sources():
    """The configuration of each source of `conf/data` that has a setting for the filter."""
    for file in sorted((CONF / "data").glob("*.yaml")):
        data = OmegaConf.load(file)
        if "interpolation" in data.source:
            yield pytest.param(OmegaConf.create({"store": "x", "data": data}), id=file.stem)


@pytest.mark.parametrize("config", list(sources()))
def test_every_source_with_the_setting_is_checked(check, config):
    source = config.data.source
    for key in OmegaConf.missing_keys(source):
        source[key.rpartition(".")[2]] = "x"
    source.size, source.interpolation = 32, None
    built = instantiate(source)
    assert isinstance(built, ResizingSource)
    data = SimpleNamespace(source=built)
    with pytest.raises(ValueError, match=r"set data\.source\.interpolation=bicubic"):
        check_interpolation(data, {"network": [BICUBIC]}, {"network": nn.Identity})
    check_interpolation(data, {"network": [BILINEAR]}, {"network": nn.Identity})
    source.interpolation = "bilinear"
    data = SimpleNamespace(source=instantiate(source))
    check_interpolation(data, {"network": [BICUBIC]}, {"network": nn.Identity})


def test_sources_without_the_setting_are_not_checked(check):
    check_interpolation(SimpleNamespace(source=object()), {"network": [BICUBIC]}, {})


def test_published_weights_may_be_named_without_their_network(check):
    network = partial(external, build=partial(models.efficientnet_b0))
    assert full_weights_name("IMAGENET1K_V1", network) == BICUBIC
    assert full_weights_name("net.pt", network) == "net.pt"
    assert full_weights_name(BILINEAR, network) == BILINEAR
    with pytest.raises(ValueError, match=f"the weights {BICUBIC} were made for .* bicubic"):
        check("IMAGENET1K_V1", network)
    with pytest.raises(ValueError, match=r"no weights IMAGENET1K_V9 of EfficientNet_B0: use IMAG"):
        full_weights_name("IMAGENET1K_V9", network)
    for other in (nn.Identity, partial(external, build=nn.Identity), partial(external)):
        with pytest.raises(ValueError, match="IMAGENET1K_V1 have no network: choose a network of"):
            full_weights_name("IMAGENET1K_V1", other)


def test_a_file_that_is_named_as_weights_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DEFAULT").touch()
    assert full_weights_name("DEFAULT", nn.Identity) == "DEFAULT"
