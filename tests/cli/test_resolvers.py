"""The names of runs from their folders and settings."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from support.configurations import check
from support.paths import CONF
from support.run_folders import make_run, make_sweep

from cwx.cli import resolvers, run


@pytest.fixture
def hydra_run(monkeypatch):
    """Sets Hydra's configuration to that of a run with these settings in a folder."""

    def start(folder, *overrides):
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            config = compose("run", list(overrides), return_hydra_config=True)
        if folder is not None:
            with open_dict(config):
                config.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(config)
        return config

    run.register_resolvers()
    before = HydraConfig.instance().cfg
    yield start
    HydraConfig.instance().cfg = before


def wandb_names(config):
    logger = OmegaConf.to_container(config.logger, resolve=True)["wandb"]
    return [logger[key] for key in ("name", "group", "job_type", "tags")]


def test_a_single_run_is_named_by_its_experiment(hydra_run, tmp_path):
    config = hydra_run(make_run(tmp_path / "x", overrides=["seed=3"]), "experiment=cifar10/noise")
    tags = ["cifar10/noise", "paper"]
    assert wandb_names(config) == ["cifar10/noise", None, "cifar10/noise", tags]


def test_a_job_belongs_to_the_group_of_its_sweep(hydra_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["experiment=cifar10/noise", "scale=small"]
    jobs = ["corruption.rate=0.25", "corruption.rate=0.5"]
    make_sweep(tmp_path / "runs/s", jobs, common=common, swept=["corruption.rate=0.25,0.5"])
    names = wandb_names(hydra_run(tmp_path / "runs/s/1", *common, jobs[1]))
    assert names == [
        "cifar10/noise small corruption.rate=0.5", "runs/s", "cifar10/noise",
        ["cifar10/noise", "small"],
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path / "runs/s/0")
    assert resolvers.sweep() == str(tmp_path / "runs/s")


def test_the_id_of_a_run_depends_on_its_folder_alone(hydra_run, tmp_path, monkeypatch):
    hydra_run(tmp_path / "a")
    first = resolvers.run_id()
    hydra_run(tmp_path / "b")
    assert resolvers.run_id() != first
    hydra_run(tmp_path / "b" / ".." / "a", "seed=5")
    assert resolvers.run_id() == first
    assert len(first) == 8


def test_a_configuration_that_is_only_printed_has_no_name(hydra_run):
    config = hydra_run(None)
    assert resolvers.run_id() == "unnamed"
    assert resolvers.sweep() is None
    assert OmegaConf.to_container(config.logger, resolve=True)["wandb"]["id"] == "unnamed"


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ("[iscp]", (None, None)),
        ("[iscp,iscp_shuffled]", (None, "iscp_shuffled")),
        ("[iscp,iscp_redrawn,iscp_shuffled]", ("iscp_redrawn", "iscp_shuffled")),
    ],
)
def test_the_controls_of_patterns_are_those_of_the_study(methods, expected):
    """Also where settings of a method remain that was not chosen, as those of a scale."""
    study = ("experiment=cifar10/iscp", "scale=medium", f"method={methods}")
    controls = check(*study)["evaluation"]["pattern_controls"]
    assert (controls["redrawn"], controls["shuffled"]) == expected
    # A name that is set is taken as it is, and refused if the study lacks the method.
    named = check(*study, "evaluation.pattern_controls.redrawn=other")
    assert named["evaluation"]["pattern_controls"]["redrawn"] == "other"
