"""What a run is called by its folder and settings."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from support.paths import CONF
from support.run_folders import make_run, make_sweep

from cwx.cli import resolvers, run


@pytest.fixture
def running(monkeypatch):
    """Makes Hydra believe that a run with these settings is in a folder."""

    def begin(folder, *overrides):
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            config = compose("run", list(overrides), return_hydra_config=True)
        if folder is not None:
            with open_dict(config):
                config.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(config)
        return config

    run.register_resolvers()
    before = HydraConfig.instance().cfg
    yield begin
    HydraConfig.instance().cfg = before


def named(config):
    logger = OmegaConf.to_container(config.logger, resolve=True)["wandb"]
    return [logger[key] for key in ("name", "group", "job_type", "tags")]


def test_a_run_by_itself_is_its_experiment(running, tmp_path):
    config = running(make_run(tmp_path / "x", overrides=["seed=3"]), "experiment=cifar10/noise")
    tags = ["cifar10/noise", "paper"]
    assert named(config) == ["cifar10/noise", None, "cifar10/noise", tags]


def test_a_job_is_in_the_group_of_its_sweep(running, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["experiment=cifar10/noise", "scale=small"]
    jobs = ["corruption.rate=0.25", "corruption.rate=0.5"]
    make_sweep(tmp_path / "runs/s", jobs, common=common, swept=["corruption.rate=0.25,0.5"])
    found = named(running(tmp_path / "runs/s/1", *common, jobs[1]))
    assert found == [
        "cifar10/noise small corruption.rate=0.5", "runs/s", "cifar10/noise",
        ["cifar10/noise", "small"],
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path / "runs/s/0")
    assert resolvers.sweep() == str(tmp_path / "runs/s")


def test_a_run_keeps_its_id_by_its_folder(running, tmp_path, monkeypatch):
    running(tmp_path / "a")
    first = resolvers.run_id()
    running(tmp_path / "b")
    assert resolvers.run_id() != first
    running(tmp_path / "b" / ".." / "a", "seed=5")
    assert resolvers.run_id() == first
    assert len(first) == 8


def test_what_is_only_shown_has_no_name(running):
    config = running(None)
    assert resolvers.run_id() == "unnamed"
    assert resolvers.sweep() is None
    assert OmegaConf.to_container(config.logger, resolve=True)["wandb"]["id"] == "unnamed"
