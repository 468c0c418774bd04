"""What is read of runs' folders, whatever state they are in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_folders import make_run, make_sweep, write

from cwx.storage.locks import writing
from cwx.storage.runs import STATES, Run, find_runs, sweep_of, waiting


def test_runs_are_found_below_a_folder_and_no_link_is_followed(tmp_path):
    below = tmp_path / "below"
    for name in ("a", "b/c", "b/d", ".hidden/e"):
        make_run(below / name)
    make_run(tmp_path / "outside")
    (below / "link").symlink_to(tmp_path / "outside")
    (below / "b" / "loop").symlink_to(below)
    # What lies in a run is its own.
    make_run(below / "a" / "inner")
    assert [run.folder for run in find_runs(below)] == [
        below / name for name in ("a", "b/c", "b/d")
    ]
    assert [run.folder for run in find_runs(below / "a")] == [below / "a"]
    assert [run.folder for run in find_runs(below / "link")] == [below / "link"]
    assert find_runs(tmp_path / "nowhere") == []


@pytest.mark.parametrize("state", ["finished", "failed", "interrupted"])
def test_a_run_is_in_the_state_that_it_says(tmp_path, state):
    assert Run.read(make_run(tmp_path / "x", state=state)).state == state


def test_a_run_whose_process_is_gone_is_lost(tmp_path):
    folder = make_run(tmp_path / "x", state="running")
    with writing(folder):
        assert Run.read(folder).state == "running"
    assert Run.read(folder).state == "lost"
    (folder / ".lock").unlink()
    assert Run.read(folder).state == "lost"


def test_a_run_that_never_began_is_listed(tmp_path):
    run = Run.read(make_run(tmp_path / "x", state=None, choices={"experiment": "digits/iscp"}))
    assert (run.state, run.experiment) == ("not started", "digits/iscp")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"state": 3}', '{"state": "flying"}', "\xff", "[" * 100_000]
)
def test_a_damaged_status_costs_what_it_would_have_said(tmp_path, text):
    folder = make_run(tmp_path / "x", metrics={"a": 1.0})
    (folder / "status.json").write_bytes(text.encode("latin-1"))
    run = Run.read(folder)
    assert run.state == "damaged"
    assert run.state in STATES
    assert run.metrics == {"a": 1.0}
    assert run.started.year >= 2024
    assert run.seconds is None


@pytest.mark.parametrize("name", ["overrides.yaml", "config.yaml", "hydra.yaml"])
@pytest.mark.parametrize("text", ["{", "3", "!!python/object:os.system {}", "\x00", "&a [*a]"])
def test_damaged_settings_cost_themselves(tmp_path, name, text):
    folder = make_run(tmp_path / "x", overrides=["seed=1"], config={"seed": 1})
    (folder / ".hydra" / name).write_text(text)
    run = Run.read(folder)
    assert run.state == "finished"
    assert isinstance(run.configuration, dict)
    assert isinstance(run.choices, dict)
    assert isinstance(run.overrides, tuple)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": null, "b": "x", "c": 1}'])
def test_only_numbers_are_numbers(tmp_path, text):
    folder = make_run(tmp_path / "x")
    write(folder / "metrics.json", text)
    assert Run.read(folder).metrics in ({}, {"c": 1.0})


@pytest.mark.parametrize("told", [("hydra",), ("ours",), ("hydra", "ours")])
def test_what_a_sweep_varies_is_what_its_jobs_have_besides(tmp_path, told):
    sweep = make_sweep(
        tmp_path / "s", ["seed=0", "seed=1", "seed=2"], common=["scale=small"],
        swept=["seed=0,1,2"], begun=2, told=told,
    )  # fmt: skip
    runs = find_runs(tmp_path)
    assert [run.sweep for run in runs] == [sweep, sweep]
    assert [run.swept for run in runs] == [("seed=0",), ("seed=1",)]
    assert waiting(sweep) == ("ours" in told)
    alone = Run.read(make_run(tmp_path / "alone", overrides=["scale=small"]))
    assert alone.sweep is None
    assert alone.swept == ("scale=small",)


def test_a_job_knows_its_sweep_by_any_way_to_it(tmp_path, monkeypatch):
    sweep = make_sweep(tmp_path / "s", ["seed=0"])
    deep = make_run(sweep / "experiment=cifar10" / "noise")
    assert sweep_of(deep) == sweep
    monkeypatch.chdir(sweep / "0")
    (run,) = find_runs(sweep / "0")
    assert run.sweep == sweep
    monkeypatch.chdir(tmp_path)
    assert sweep_of(Path("s/0")) == Path("s")


@pytest.mark.parametrize("text", ["", "[]", '{"jobs": 3}', '{"jobs": [3, {"folder": 4}]}'])
def test_a_damaged_sweep_has_none_waiting(tmp_path, text):
    sweep = make_sweep(tmp_path / "s", ["seed=0"])
    (sweep / "sweep.json").write_text(text)
    assert waiting(sweep) == 0


def test_runs_are_read_without_torch_or_hydra(tmp_path):
    make_run(tmp_path / "x")
    code = (
        "import sys, pathlib, cwx.storage.runs, cwx.storage.store_entries,"
        " cwx.cli.commands.ls, cwx.cli.commands.experts,"
        " cwx.cli.commands.report, cwx.cli.app;"
        "assert len(cwx.storage.runs.find_runs(pathlib.Path(sys.argv[1]))) == 1;"
        "import json; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert not {"torch", "hydra", "lightning", "wandb", "matplotlib"} & set(json.loads(done.stdout))
