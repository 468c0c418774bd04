"""Finding and reading runs on disk, also damaged ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_folders import make_run, make_sweep, write

from cwx.storage.locks import writing
from cwx.storage.runs import STATES, Run, count_waiting_jobs, find_runs, sweep_of


def test_runs_are_found_below_a_folder_and_no_link_is_followed(tmp_path):
    below = tmp_path / "below"
    for name in ("a", "b/c", "b/d", ".hidden/e"):
        make_run(below / name)
    make_run(tmp_path / "outside")
    (below / "link").symlink_to(tmp_path / "outside")
    (below / "b" / "loop").symlink_to(below)
    # Folders inside a run are not searched.
    make_run(below / "a" / "inner")
    assert [run.folder for run in find_runs(below)] == [
        below / name for name in ("a", "b/c", "b/d")
    ]
    assert [run.folder for run in find_runs(below / "a")] == [below / "a"]
    assert [run.folder for run in find_runs(below / "link")] == [below / "link"]
    assert find_runs(tmp_path / "nowhere") == []


@pytest.mark.parametrize("state", ["finished", "failed", "interrupted"])
def test_the_state_of_an_ended_run_is_that_of_its_status(tmp_path, state):
    assert Run.read(make_run(tmp_path / "x", state=state)).state == state


def test_a_running_run_without_a_process_is_lost(tmp_path):
    folder = make_run(tmp_path / "x", state="running")
    with writing(folder):
        assert Run.read(folder).state == "running"
    assert Run.read(folder).state == "lost"
    (folder / ".lock").unlink()
    assert Run.read(folder).state == "lost"


def test_a_run_that_never_started_is_listed(tmp_path):
    run = Run.read(make_run(tmp_path / "x", state=None, choices={"experiment": "digits/iscp"}))
    assert (run.state, run.experiment) == ("not started", "digits/iscp")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"state": 3}', '{"state": "flying"}', "\xff", "[" * 100_000]
)
def test_a_damaged_status_leaves_its_attributes_empty(tmp_path, text):
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
def test_damaged_settings_are_empty(tmp_path, name, text):
    folder = make_run(tmp_path / "x", overrides=["seed=1"], config={"seed": 1})
    (folder / ".hydra" / name).write_text(text)
    run = Run.read(folder)
    assert run.state == "finished"
    assert isinstance(run.configuration, dict)
    assert isinstance(run.choices, dict)
    assert isinstance(run.overrides, tuple)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": null, "b": "x", "c": 1}'])
def test_metrics_that_are_not_numbers_are_ignored(tmp_path, text):
    folder = make_run(tmp_path / "x")
    write(folder / "metrics.json", text)
    assert Run.read(folder).metrics in ({}, {"c": 1.0})


@pytest.mark.parametrize("files", [("hydra",), ("cwx",), ("hydra", "cwx")])
def test_the_swept_overrides_are_those_not_common_to_all_jobs(tmp_path, files):
    sweep = make_sweep(
        tmp_path / "s", ["seed=0", "seed=1", "seed=2"], common=["scale=small"],
        swept=["seed=0,1,2"], begun=2, files=files,
    )  # fmt: skip
    runs = find_runs(tmp_path)
    assert [run.sweep for run in runs] == [sweep, sweep]
    assert [run.swept for run in runs] == [("seed=0",), ("seed=1",)]
    assert count_waiting_jobs(sweep) == ("cwx" in files)
    alone = Run.read(make_run(tmp_path / "alone", overrides=["scale=small"]))
    assert alone.sweep is None
    assert alone.swept == ("scale=small",)


def test_a_job_finds_its_sweep_by_relative_and_absolute_paths(tmp_path, monkeypatch):
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
    assert count_waiting_jobs(sweep) == 0


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
