"""The home directory in paths of YAML files, as on the command line."""

from pathlib import Path
from types import SimpleNamespace

import hydra.utils
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from support.configurations import CONF

from cwx.cli import run as entry
from cwx.cli.config.compose import compose_checked
from cwx.cli.config.home import expand_settings
from cwx.cli.resolvers import register_resolvers

HOME = str(Path.home())
CASES = {
    "~": HOME, "~/": f"{HOME}/", "~/a b/c": f"{HOME}/a b/c", "~user/a": "~user/a", "a/~": "a/~",
    "x~": "x~", "": "", "~~": "~~", "~.png": "~.png",
}  # fmt: skip


@pytest.mark.parametrize("text", CASES)
def test_a_leading_tilde_is_the_home_directory(text):
    expanded = CASES[text]
    assert expand_settings({"a": [text, {"b": text}], "c": 1}) == {
        "a": [expanded, {"b": expanded}], "c": 1,
    }  # fmt: skip


def write_own(folder):
    """The configuration folder of a user, with paths below the home directory."""
    (folder / "data").mkdir()
    (folder / "data/mine.yaml").write_text(
        "defaults: [image_folder]\nsource: {root: ~/images, size: 8}\n"
    )
    return str(folder)


def test_paths_in_a_users_yaml_files_are_expanded(tmp_path):
    register_resolvers()
    overrides = ["data=mine", "store='~/store'", "experts.checkpoints=['~/a.pt', b.pt]"]
    settings = compose_checked(
        CONF, overrides, multirun=False, extra=write_own(tmp_path), resumed=None
    )
    assert settings["data"]["source"]["root"] == f"{HOME}/images"
    assert settings["store"] == f"{HOME}/store"
    assert settings["experts"]["checkpoints"] == [f"{HOME}/a.pt", "b.pt"]


def test_the_study_gets_the_same_paths(tmp_path, monkeypatch):
    configurations = []

    def build(configuration, **_):
        configurations.append(configuration)
        return SimpleNamespace(run=lambda *_, **__: None)

    runtime = SimpleNamespace(choices={}, config_sources=[])
    monkeypatch.setattr(hydra.utils, "instantiate", build)
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    config = OmegaConf.create({"optimize": None, "store": "~/store", "a": "${store}/b"})
    entry._run(config, tmp_path, resumed=False)
    assert configurations == [{"store": f"{HOME}/store", "a": f"{HOME}/store/b"}]
