"""Listing and pruning a store: only old, unused entries of the store are deleted."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from cwx.cli.commands import experts
from cwx.errors import UserError
from cwx.storage.atomic import write_json, write_tensors
from cwx.storage.locks import writing
from cwx.storage.shards import Shards
from cwx.storage.store_entries import (
    Entry,
    NotPrunableError,
    check_prunable,
    digest,
    entries,
    prune,
)
from cwx.storage.trajectories import Recorder, Trajectory, TrajectoryStore

DAY = 86400.0
NETWORK = {"_target_": "cwx.networks.convnet.ConvNet", "_partial_": True, "width": 4}


def set_age(path: Path, days: float) -> Path:
    """Set the time stamps of all files to `days` ago."""
    then = time.time() - days * DAY
    for file in path.iterdir():
        os.utime(file, (then, then), follow_symlinks=False)
    return path


def expert(root: Path, seed=0, *, days=100.0, complete=True, run=None) -> Path:
    """The folder of a small expert in a store, as written by a training."""
    store = TrajectoryStore(root)
    if run is not None:
        store.set_user(run, {"experiment": "digits/quickstart", "data": "digits"})
    identity = {"network": NETWORK, "seed": seed, "data": "ab" * 32, "recipe": {}}
    with store.lock(identity, "waiting"):
        recorder = Recorder(store.path(identity), identity)
        recorder.start()
        for epoch in range(3):
            recorder.record(epoch, {"w": torch.zeros(4)}, 0.25 * (epoch + 1))
        if complete:
            recorder.complete(range(3))
    return set_age(store.path(identity), days)


def run_command(root: Path, capsys, *argv):
    experts.main([*argv, "--store", str(root)])
    return capsys.readouterr().out


def test_entries_are_listed_by_last_use(tmp_path, capsys):
    old, new = expert(tmp_path, 1, days=9), expert(tmp_path, 2, days=3)
    (tmp_path / "README").write_text("not an entry")
    (tmp_path / "other").mkdir()
    assert [entry.path for entry in entries(tmp_path)] == [new, old]
    text = run_command(tmp_path, capsys)
    line = next(line for line in text.splitlines() if line.startswith(new.name))
    assert "ConvNet(width=4)" in line
    assert line.split()[2:6] == ["2", "abababab", "2", "0.75"]
    assert text.splitlines()[-1].startswith("2 in ")


def test_an_entry_lists_its_runs_and_their_last_use(tmp_path, capsys):
    runs = [tmp_path / "runs" / name for name in "ab"]
    for run in runs:
        before = time.time() - 2
        path = expert(tmp_path / "store", 0, days=0, run=run)
    (entry,) = entries(tmp_path / "store")
    assert [*entry.uses] == [str(run) for run in runs]
    assert entry.last_used >= before
    assert all(use["experiment"] == "digits/quickstart" for use in entry.uses.values())
    rows = json.loads(run_command(tmp_path / "store", capsys, "ls", "--json"))
    assert rows[0]["folder"] == str(path)
    assert [*rows[0]["uses"]] == [str(run) for run in runs]
    assert f"{runs[1]} and 1 more" in run_command(tmp_path / "store", capsys)
    assert Trajectory(path).epochs == 2


def test_every_kind_of_entry_has_a_description(tmp_path, capsys):
    kinds = {
        "checkpoint 12345678": {"checkpoint": "1234567890", "tensors": []},
        "expert 2 of buffer 12345678": {"buffer": "1234567890", "expert": 2, "parameters": []},
        "construction: NonRobust(steps=100)": {
            "dataset_construction": {
                "algorithm": {
                    "_target_": "cwx.methods.construction_algorithms.NonRobust",
                    "steps": 100,
                }
            },
            "precision": {"_target_": "cwx.training.precision.Precision"},
        },
        "ConvNet(width=4), adversarial training": {
            "network": NETWORK,
            "recipe": {"attack": {"_target_": "cwx.functional.attacks.Attack"}},
        },
        "Net(depth=2)": {
            "network": {"_target_": "n.external", "build": {"_target_": "Net", "depth": 2}}
        },
    }  # fmt: skip
    for description, identity in kinds.items():
        shards = Shards(tmp_path / digest(identity), count=2, size=2)
        shards.start(identity)
        shards.write(0, {"images": torch.zeros(2, 1)})
        shards.complete()
        text = run_command(tmp_path, capsys, "ls", digest(identity))
        assert f"{description}  " in text
        assert "2 images" in text
    assert all(entry.foreign_reason() is None for entry in entries(tmp_path))


def test_locked_and_incomplete_entries_are_marked(tmp_path, capsys):
    path = expert(tmp_path, complete=False)
    assert "(unfinished)" in run_command(tmp_path, capsys)
    with FileLock(path / "lock"):
        assert "(being written)" in run_command(tmp_path, capsys)


def read_tree(root: Path):
    """All files below `root`, with their contents."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def test_pruning_is_a_dry_run_by_default(tmp_path, capsys):
    expert(tmp_path, 0)
    before = read_tree(tmp_path)
    assert "1 of 1 would go and free" in run_command(tmp_path, capsys, "prune")
    assert read_tree(tmp_path) == before


def test_pruning_deletes_old_entries_only(tmp_path, capsys):
    old, new = expert(tmp_path / "store", 0, days=40), expert(tmp_path / "store", 1, days=20)
    (tmp_path / "beside").write_text("stays")
    size = Entry.read(old).size
    text = run_command(tmp_path / "store", capsys, "prune", "--yes")
    assert f"deleted {old.name}" in text
    assert "1 stays: used too recently" in text
    assert f"1 of 2 deleted, {size} B freed" in text
    assert [entry.path for entry in entries(tmp_path / "store")] == [new]
    assert not old.exists()
    assert (tmp_path / "beside").read_text() == "stays"
    assert Trajectory(new).recorded_epochs == (0, 1, 2)


@settings(max_examples=10)
@given(days=st.lists(st.floats(0.01, 99), min_size=1, max_size=4), limit=st.floats(0.02, 90))
def test_entries_younger_than_the_limit_stay(tmp_path_factory, days, limit):
    root = tmp_path_factory.mktemp("store")
    paths = {seed: expert(root, seed, days=age) for seed, age in enumerate(days)}
    for seed, path in paths.items():
        if days[seed] > limit + 1e-3:
            prune(path, older_than=limit * DAY)
        elif days[seed] < limit - 1e-3:
            with pytest.raises(NotPrunableError, match="too recently"):
                prune(path, older_than=limit * DAY)
        assert path.exists() or days[seed] >= limit - 1e-3


def lock_entry(path):
    lock = FileLock(path / "lock")
    lock.acquire()
    return lock.release


def use_in_a_run(path):
    run = path.parent.parent / "run"
    write_json(path / "uses.json", {str(run): {"last": "2026-01-01T00:00:00+00:00"}})
    set_age(path, 100)
    lock = writing(run)
    lock.__enter__()
    return lambda: lock.__exit__(None, None, None)


def add_foreign_file(path):
    (path / "thesis.tex").write_text("years of work")
    set_age(path, 100)


def add_folder(path):
    (path / "state-0009.safetensors").mkdir()
    set_age(path, 100)


def change_identity(path):
    write_json(path / "identity.json", {"network": "another"})
    set_age(path, 100)


def remove_identity(path):
    (path / "identity.json").unlink()
    set_age(path, 100)


def link_a_state(path):
    outside = path.parent.parent / "precious"
    outside.write_text("outside")
    (path / "state-0001.safetensors").unlink()
    (path / "state-0001.safetensors").symlink_to(outside)
    set_age(path, 100)


def link_the_lock(path):
    outside = path.parent.parent / "precious"
    outside.write_text("outside")
    (path / "lock").unlink()
    (path / "lock").symlink_to(outside)
    set_age(path, 100)


@pytest.mark.parametrize(
    "protect",
    [
        lock_entry,
        use_in_a_run,
        add_foreign_file,
        add_folder,
        change_identity,
        remove_identity,
        link_a_state,
        link_the_lock,
    ],
    ids=lambda protect: protect.__name__,
)
def test_entries_in_use_and_foreign_folders_are_unchanged(tmp_path, capsys, protect):
    path = expert(tmp_path / "store")
    release = protect(path)
    try:
        before = read_tree(tmp_path)
        text = run_command(
            tmp_path / "store", capsys, "prune", path.name, "--older-than=0s", "--yes"
        )
        assert f"{path.name} stays: " in text
        assert "0 of 1 deleted" in text
        with pytest.raises(NotPrunableError):
            check_prunable(Entry.read(path), older_than=0)
        assert read_tree(tmp_path) == before
    finally:
        if release:
            release()


def test_a_link_in_the_store_is_neither_listed_nor_followed(tmp_path, capsys):
    outside = expert(tmp_path / "elsewhere")
    store = tmp_path / "store"
    store.mkdir()
    (store / outside.name).symlink_to(outside)
    before = read_tree(tmp_path)
    assert entries(store) == []
    with pytest.raises(UserError):
        run_command(store, capsys, "prune", outside.name, "--older-than=0s", "--yes")
    with pytest.raises(NotPrunableError):
        prune(store / outside.name, older_than=0)
    assert read_tree(tmp_path) == before


@pytest.mark.parametrize("name", ["store", "0" * 20, "A" * 20, "f" * 21])
def test_a_folder_with_another_name_stays(tmp_path, name):
    path = expert(tmp_path).rename(tmp_path / name)
    with pytest.raises(NotPrunableError):
        prune(path, older_than=0)
    assert Trajectory(path).epochs == 2


def test_only_a_running_run_protects_its_entries(tmp_path):
    run = tmp_path / "run"
    with writing(run):
        path = expert(tmp_path / "store", run=run)
        with pytest.raises(NotPrunableError, match="in use by"):
            prune(path, older_than=0)
    prune(path, older_than=0)
    assert not path.exists()


def test_files_of_a_killed_process_are_pruned(tmp_path):
    path = expert(tmp_path, complete=False)
    write_tensors(path / "checkpoint-0123abcd.ckpt", {"w": torch.zeros(1)}, {})
    (path / ".state-0003.safetensors.a1b2_c3d.part").write_bytes(b"half")
    set_age(path, 100)
    prune(path, older_than=DAY)
    assert not path.exists()
    empty = tmp_path / ("0" * 20)
    empty.mkdir()
    (empty / "lock").touch()
    prune(empty, older_than=0)
    assert not empty.exists()


def test_a_pruned_entry_can_be_written_again(tmp_path):
    path = expert(tmp_path)
    prune(path, older_than=0)
    assert expert(tmp_path) == path
    assert Trajectory(path).epochs == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["prnue"], "did you mean prune?"),
        (["prune", "zzz"], "has no zzz"),
        (["prune", "--older-than", "3"], "give a number and one of s, m, h, d, w, as in 30d"),
        (["--yes"], "are for"),
        (["--stroe", "x"], "did you mean --store?"),
    ],
)
def test_invalid_arguments_are_refused(tmp_path, argv, message):
    expert(tmp_path)
    with pytest.raises(UserError) as refused:
        experts.main([*argv, "--store", str(tmp_path)])
    assert message in str(refused.value)


def test_an_empty_store_is_no_error(tmp_path, capsys):
    assert "is empty: studies fill it" in run_command(tmp_path, capsys)
    assert "0 of 0 deleted" in run_command(tmp_path, capsys, "prune")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"seed": []}', '{"network": 3}', "[" * 100_000])
def test_a_damaged_entry_is_listed_and_not_deleted(tmp_path, capsys, text):
    path = expert(tmp_path)
    for name in ("identity.json", "complete.json", "uses.json"):
        (path / name).write_text(text)
    (path / "state-0002.safetensors").write_bytes(b"\xff" * 12)
    set_age(path, 100)
    assert path.name in run_command(tmp_path, capsys)
    json.loads(run_command(tmp_path, capsys, "ls", "--json"))
    with pytest.raises(NotPrunableError):
        prune(path, older_than=0)


def test_control_characters_are_escaped(tmp_path, capsys):
    hostile = "\x1b[2J\nowned\x07"
    identity = {"network": {"_target_": f"x.{hostile}", hostile: hostile}, "data": hostile}
    path = tmp_path / digest(identity)
    write_json(path / "identity.json", identity)
    write_json(path / "complete.json", {"epochs": [0]})
    write_json(path / "uses.json", {hostile: {"data": hostile}})
    set_age(path, 100)
    for argv in ([], ["prune"], ["prune", path.name, "--yes"]):
        text = run_command(tmp_path, capsys, *argv)
        assert all(c.isprintable() for c in text.replace("\n", ""))
        assert "\\x1b" in text


def test_listing_changes_nothing(tmp_path, capsys):
    path = expert(tmp_path)
    before, last = read_tree(tmp_path), Entry.read(path).last_used
    run_command(tmp_path, capsys)
    run_command(tmp_path, capsys, "prune")
    assert read_tree(tmp_path) == before
    assert Entry.read(path).last_used == last
