"""Finding and reading runs on disk, also damaged ones."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_folders import make_run, make_sweep, write

from cwx.storage.locks import writing
from cwx.storage.run_folders import sweep_of
from cwx.storage.runs import STATES, Run, count_waiting_jobs, find_runs
from cwx.storage.sweeps import read_jobs, read_sweep


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


HUGE = "1" * 400
DAMAGED_STATUS = {
    "a number": ("5", "holds a number"),
    "a list": ("[1, 2]", "holds a list"),
    "null": ("null", "holds null"),
    "empty": ("", "cannot be read"),
    "nested": ("[" * 100_000, "nested"),
    "not UTF-8": ("\xff", "utf-8"),
    "a date without a month": ('{"state": "finished", "started": "2026-13-45"}', "started"),
    "a date before year 1": (
        '{"state": "finished", "started": "0001-01-01T00:00:00+14:00"}', "started",
    ),
    "a date after year 9999": (
        '{"state": "finished", "started": "9999-12-31T23:59:59-14:00"}', "started",
    ),
    "a number as a date": ('{"state": "finished", "started": 5}', "started"),
    "infinite seconds": ('{"state": "finished", "seconds": Infinity}', "seconds"),
    "seconds that are NaN": ('{"state": "finished", "seconds": NaN}', "seconds"),
    "negative seconds": ('{"state": "finished", "seconds": -1}', "seconds"),
    "many seconds": ('{"state": "finished", "seconds": 1e300}', "seconds"),
    "a huge integer": ('{"state": "finished", "seconds": ' + HUGE + "}", "seconds"),
    "seconds in words": ('{"state": "finished", "seconds": "ten"}', "seconds"),
    "true seconds": ('{"state": "finished", "seconds": true}', "seconds"),
    "a list as a reason": ('{"state": "finished", "reason": [1]}', "reason"),
    "a list as an experiment": ('{"state": "finished", "experiment": [1]}', "experiment"),
    "a list as a state": ('{"state": ["finished"]}', "state"),
    "a state that is none": ('{"state": "flying"}', "state is 'flying'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED_STATUS)
def test_a_damaged_status_is_named(tmp_path, kind):
    text, name = DAMAGED_STATUS[kind]
    folder = make_run(tmp_path / "x")
    (folder / "status.json").write_bytes(text.encode("latin-1"))
    run = Run.read(folder)
    assert "status.json" in " ".join(run.damage)
    assert name in " ".join(run.damage)
    assert run.started.year >= 2024
    assert run.seconds is None
    assert Run.read(make_run(tmp_path / "y", metrics={"a": 1.0})).damage == ()


def replace_by(file, kind):
    file.unlink()
    if kind == "a folder":
        file.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(file)
    elif kind == "a link to itself":
        file.symlink_to(file)
    elif kind == "a device":
        file.symlink_to("/dev/zero")
    else:
        file.symlink_to(file.parent / "nowhere")


@pytest.mark.parametrize(
    "kind", ["a folder", "a named pipe", "a link to itself", "a link to nothing", "a device"]
)
@pytest.mark.parametrize(
    "name", ["status.json", "metrics.json", ".hydra/overrides.yaml", ".hydra/config.yaml"]
)
def test_what_stands_in_place_of_a_file_is_named_and_not_waited_for(tmp_path, name, kind):
    folder = make_run(tmp_path / "x", metrics={"a": 1.0}, overrides=["seed=1"])
    make_run(tmp_path / "y")
    replace_by(folder / name, kind)
    run, intact = find_runs(tmp_path)
    assert isinstance(run.configuration, dict)
    assert intact.damage == ()
    if not name.endswith("config.yaml"):
        assert Path(name).name in " ".join(run.damage)


def test_overrides_of_nested_aliases_take_no_time(tmp_path):
    folder = make_run(tmp_path / "x")
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 8)]
    (folder / ".hydra/overrides.yaml").write_text("\n".join(lines))
    run = Run.read(folder)
    assert run.overrides == ()
    assert "overrides.yaml cannot be read: line 1 has an anchor" in run.damage[0]


def test_a_deep_folder_is_searched(tmp_path):
    folders = [Path(f"{tmp_path}{'/a' * depth}") for depth in range(1, 1501)]
    try:
        for folder in folders:
            folder.mkdir()
        make_run(folders[-1])
        assert [str(run.folder) for run in find_runs(tmp_path)] == [str(folders[-1])]
    finally:
        # Python 3.11 cannot remove so deep a tree at once.
        shutil.rmtree(folders[-1])
        for folder in reversed(folders[:-1]):
            folder.rmdir()


def test_a_folder_that_cannot_be_read_is_a_damaged_run(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        make_run(tmp_path / name / "run")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    first, unreadable, last = find_runs(tmp_path)
    assert (first.folder, last.folder) == (tmp_path / "a/run", tmp_path / "c/run")
    assert (unreadable.folder, unreadable.state) == (tmp_path / "b", "damaged")
    assert unreadable.damage == ("the folder cannot be read: Permission denied",)
    assert unreadable.started.year >= 2024


@pytest.mark.parametrize("text", ["[]", "{", '{"a": "x"}', "[" * 100_000, '{"a": 1, "a": 2}'])
def test_damaged_metrics_are_named(tmp_path, text):
    folder = make_run(tmp_path / "x")
    write(folder / "metrics.json", text)
    assert "metrics.json" in " ".join(Run.read(folder).damage)


@pytest.mark.parametrize("text", ["", "[]", '{"jobs": 3}', '{"jobs": [3, {"folder": 4}]}'])
def test_a_damaged_sweep_is_refused(tmp_path, text):
    sweep = make_sweep(tmp_path / "s", ["seed=0"])
    (sweep / "sweep.json").write_text(text)
    with pytest.raises(ValueError, match=r"sweep\.json"):
        read_sweep(sweep)


@pytest.mark.parametrize(
    "job", [3, {}, {"folder": "../x"}, {"folder": "/x"}, {"number": "1"}, {"swept": [1]}]
)
def test_a_damaged_job_of_a_sweep_is_refused(tmp_path, job):
    intact = {"number": 0, "folder": "0", "overrides": ["a=1"], "swept": {"a": "1"}}
    job = {**intact, **job} if job and isinstance(job, dict) else job
    sweep = {"overrides": [], "hydra": [], "started": "", "jobs": [intact, job]}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
        read_jobs(tmp_path)
    (tmp_path / "sweep.json").write_text(json.dumps({**sweep, "jobs": [intact]}))
    assert read_jobs(tmp_path)[0].folder == tmp_path / "0"


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
