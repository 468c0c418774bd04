"""The sweeper of all combinations: Hydra's jobs, and a file of the sweep that is written once."""

import os
from types import SimpleNamespace

import pytest
from hydra._internal.core_plugins import basic_sweeper
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import OmegaConf
from support.configurations import CONF

from cwx.cli import run as entry
from cwx.cli.config import compose
from cwx.cli.resolvers import register_resolvers
from cwx.cli.resume import resolve_resume
from cwx.errors import UserError
from hydra_plugins.cwx_combinations import Combinations


def with_fakes(sweeper, folder):
    """The sweeper and the batches that it has launched."""
    batches = []

    def launch(batch, initial_job_idx):
        batches.append((initial_job_idx, [list(job) for job in batch]))
        return [SimpleNamespace(return_value=None) for _ in batch]

    overrides = {"task": ["seed=0,1"], "hydra": []}
    hydra = {"sweep": {"dir": str(folder)}, "overrides": overrides}
    sweeper.config = OmegaConf.create({"seed": 0, "store": "${oc.env:HOME}", "hydra": hydra})
    loader = SimpleNamespace(load_sweep_config=lambda **_: None)
    sweeper.hydra_context = SimpleNamespace(config_loader=loader)
    sweeper.launcher = SimpleNamespace(launch=launch)
    return sweeper, batches


@pytest.mark.parametrize("size", [None, 1, 2, 4])
@pytest.mark.parametrize(
    "arguments", [["x=1"], ["x=1,2,3", "y=a"], ["x=1,2", "y='a,b',c"], ["x=range(3)"], ["g=[1,2]"]]
)
def test_the_jobs_are_those_of_hydra(tmp_path, arguments, size):
    results = []
    for kind in (basic_sweeper.BasicSweeper, Combinations):
        sweeper, batches = with_fakes(kind(size, {"z": "5,6"}), tmp_path / kind.__name__)
        results.append([len(sweeper.sweep(arguments)), batches])
    assert results[0] == results[1]


def test_the_settings_of_a_sweep_are_hydras_and_written_once(tmp_path):
    saved = []
    for kind in (basic_sweeper.BasicSweeper, Combinations):
        sweeper, _ = with_fakes(kind(None), tmp_path / kind.__name__)
        sweeper.sweep(["seed=0,1"])
        saved.append((tmp_path / kind.__name__ / "multirun.yaml").read_text())
    file = tmp_path / "Combinations/multirun.yaml"
    assert saved[1] == saved[0].replace("BasicSweeper", "Combinations")
    before = file.stat()
    sweeper, batches = with_fakes(Combinations(), tmp_path / "Combinations")
    sweeper.config.seed = 7
    sweeper.sweep(["seed=0,1"])
    assert len(batches) == 1
    after = file.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_sweep_whose_settings_cannot_be_written_starts_no_job(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    sweeper, batches = with_fakes(Combinations(), tmp_path)
    with pytest.raises(SystemExit, match=r"cwx: .*multirun\.yaml") as caught:
        sweeper.sweep(["seed=0,1"])
    assert "\n" not in caught.value.code
    assert not batches
    assert not (tmp_path / "multirun.yaml").exists()


def test_hydra_takes_this_sweeper_by_default():
    register_resolvers()
    _, config = compose._output_directory(CONF, ["seed=0,1"], extra=None, mode=RunMode.MULTIRUN)
    assert config.hydra.sweeper._target_ == "hydra_plugins.cwx_combinations.Combinations"
    assert "Combinations" in {kind.__name__ for kind in Plugins.instance().discover(Sweeper)}


@pytest.mark.parametrize("name", ["multirun.yaml", "sweep.json"])
def test_a_new_sweep_does_not_enter_the_folder_of_another(tmp_path, monkeypatch, name):
    register_resolvers()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("{}")
    with pytest.raises(UserError, match="mine holds a sweep already: continue it with resume=mine"):
        entry._prepare(["-m", "seed=0,1", "hydra.sweep.dir=mine"])


def test_the_settings_that_are_written_continue_the_sweep(tmp_path):
    register_resolvers()
    sweeper, _ = with_fakes(Combinations(), tmp_path)
    sweeper.sweep(["seed=0,1"])
    request = resolve_resume(CONF, [f"resume={tmp_path}"], multirun=False, extra=None)
    assert request.overrides[0] == "seed=0,1"
    assert request.multirun
