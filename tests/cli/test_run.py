"""The function that runs a job: what it returns, and what it records of failures and interrupts."""

import json
from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from cwx.cli import run as entry


@pytest.fixture
def hydra_config(tmp_path, monkeypatch):
    """Hydra's configuration of a job whose directory is `tmp_path`."""
    runtime = SimpleNamespace(
        output_dir=str(tmp_path), choices={"experiment": "mine", "scale": "small"}
    )
    config = SimpleNamespace(
        mode=RunMode.MULTIRUN,
        runtime=runtime,
        job=SimpleNamespace(num=2, id="7"),
        overrides=SimpleNamespace(task=["seed=1"], hydra=["hydra.verbose=true"]),
    )
    monkeypatch.setattr(HydraConfig, "get", lambda: config)
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(entry.hydra_files, "save", lambda *_: None)
    return config


@pytest.fixture
def starts(monkeypatch):
    """Whether each start of the study resumed one; the study measures a metric."""
    resumes = []

    def run(config, folder, *, resumed):
        resumes.append(resumed)
        if config.fails:
            raise ValueError("seed is wrong: give another")
        (folder / "metrics.json").write_text('{"a": 0.5}')

    monkeypatch.setattr(entry, "_run", run)
    return resumes


def job(*, resumed, fails=False, optimize="a"):
    return entry.job(OmegaConf.create({"optimize": optimize, "fails": fails}), resumed=resumed)


@pytest.mark.usefixtures("hydra_config")
def test_a_job_returns_its_optimised_metrics(starts):
    assert job(resumed=False) == 0.5
    assert job(resumed=False, optimize=["a", "a"]) == [0.5, 0.5]
    assert job(resumed=False, optimize=None) is None
    assert starts == [False] * 3


def test_a_single_run_returns_nothing(hydra_config, starts):
    hydra_config.mode = RunMode.RUN
    assert job(resumed=True, optimize="unknown") is None
    assert starts == [True]


@pytest.mark.usefixtures("hydra_config")
@pytest.mark.parametrize(
    ("state", "expected"), [("finished", []), ("interrupted", [True]), (None, [False])]
)
def test_a_resumed_sweep_does_not_rerun_finished_jobs(starts, tmp_path, state, expected):
    (tmp_path / "metrics.json").write_text('{"a": 0.25}')
    if state:
        (tmp_path / "status.json").write_text(json.dumps({"state": state}))
    assert job(resumed=True) == (0.25 if state == "finished" else 0.5)
    assert starts == expected


@pytest.mark.usefixtures("starts")
def test_a_job_that_fails_does_not_end_the_sweep(hydra_config, tmp_path):
    with pytest.raises(CompactHydraException, match="^cwx: seed is wrong: give another$"):
        job(resumed=False, fails=True)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["experiment"]) == ("failed", "mine small")
    assert status["reason"] == "seed is wrong: give another"
    hydra_config.mode = RunMode.RUN
    with pytest.raises(SystemExit, match="^cwx: seed is wrong: give another$"):
        job(resumed=False, fails=True)


@pytest.mark.usefixtures("hydra_config")
@pytest.mark.parametrize(
    ("started", "message"), [(True, "stopped; continue with"), (False, "stopped before it began")]
)
def test_an_interrupted_run_names_its_folder_once_it_has_started(
    monkeypatch, tmp_path, caplog, started, message
):
    def interrupt(config, folder, *, resumed):
        if started:
            (folder / "status.json").write_text('{"state": "interrupted"}')
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "_run", interrupt)
    with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
        job(resumed=False)
    assert message in caplog.text
    assert ("resume=" in caplog.text) == started
