"""The jobs of a sweep whose launcher calls them, in its own process or in one that it made."""

import json
from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from cwx.cli import run as entry


@pytest.fixture
def known(tmp_path, monkeypatch):
    """What Hydra says of the job, whose directory is `tmp_path`."""
    runtime = SimpleNamespace(
        output_dir=str(tmp_path), choices={"experiment": "mine", "scale": "small"}
    )
    known = SimpleNamespace(
        mode=RunMode.MULTIRUN,
        runtime=runtime,
        job=SimpleNamespace(num=2, id="7"),
        overrides=SimpleNamespace(task=["seed=1"], hydra=["hydra.verbose=true"]),
    )
    monkeypatch.setattr(HydraConfig, "get", lambda: known)
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    return known


@pytest.fixture
def starts(monkeypatch):
    """Whether each start of the study was one that continues; it measures something."""
    seen = []

    def run(config, folder, *, resumed):
        seen.append(resumed)
        if config.fails:
            raise ValueError("seed is wrong: give another")
        (folder / "metrics.json").write_text('{"a": 0.5}')

    monkeypatch.setattr(entry, "_run", run)
    return seen


def job(*, resumed, fails=False, optimize="a"):
    return entry.job(OmegaConf.create({"optimize": optimize, "fails": fails}), resumed=resumed)


@pytest.mark.usefixtures("known")
def test_a_job_returns_what_is_optimised(starts):
    assert job(resumed=False) == 0.5
    assert job(resumed=False, optimize=["a", "a"]) == [0.5, 0.5]
    assert job(resumed=False, optimize=None) is None
    assert starts == [False] * 3


def test_a_run_by_itself_returns_nothing(known, starts):
    known.mode = RunMode.RUN
    assert job(resumed=True, optimize="unknown") is None
    assert starts == [True]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("state", "expected"), [("finished", []), ("interrupted", [True]), (None, [False])]
)
def test_a_resumed_sweep_leaves_alone_what_has_finished(starts, tmp_path, state, expected):
    (tmp_path / "metrics.json").write_text('{"a": 0.25}')
    if state:
        (tmp_path / "status.json").write_text(json.dumps({"state": state}))
    assert job(resumed=True) == (0.25 if state == "finished" else 0.5)
    assert starts == expected


@pytest.mark.usefixtures("starts")
def test_a_job_that_fails_does_not_end_the_sweep(known, tmp_path):
    with pytest.raises(CompactHydraException, match="^cwx: seed is wrong: give another$"):
        job(resumed=False, fails=True)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["experiment"]) == ("failed", "mine small")
    assert status["reason"] == "seed is wrong: give another"
    known.mode = RunMode.RUN
    with pytest.raises(SystemExit, match="^cwx: seed is wrong: give another$"):
        job(resumed=False, fails=True)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("begun", "said"), [(True, "stopped; continue with"), (False, "stopped before it began")]
)
def test_a_run_that_is_stopped_can_be_continued_once_it_has_begun(
    monkeypatch, tmp_path, caplog, begun, said
):
    def stopped(config, folder, *, resumed):
        if begun:
            (folder / "status.json").write_text('{"state": "interrupted"}')
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "_run", stopped)
    with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
        job(resumed=False)
    assert said in caplog.text
    assert ("resume=" in caplog.text) == begun
