"""The directory of a run: new, writable, and used by no other run."""

import sys
from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from cwx.cli import resolvers, run_directory
from cwx.cli import run as entry
from cwx.errors import UserError
from cwx.storage.run_files import STATUS


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_directory.unused.cache_clear()
    return tmp_path


def prepare(*argv):
    resolvers.register_resolvers()
    return entry._prepare(argv)


def test_runs_that_start_in_the_same_second_have_different_folders(here):
    assert run_directory.unused("runs/mine/now") == "runs/mine/now"
    assert run_directory.unused("runs/mine/now") == "runs/mine/now"
    for name in ("runs/mine/now-2", "runs/mine/now-3"):
        # As in another process.
        run_directory.unused.cache_clear()
        assert run_directory.unused("runs/mine/now") == name
        assert (here / name).is_dir()


@pytest.mark.parametrize(
    ("mode", "environment", "created"),
    [
        (RunMode.RUN, {}, True),
        (RunMode.MULTIRUN, {}, False),
        (RunMode.RUN, {"LOCAL_RANK": "1"}, False),
        (RunMode.RUN, {"SLURM_NTASKS": "2"}, False),
    ],
)
def test_only_a_single_run_creates_its_folder(here, monkeypatch, mode, environment, created):
    for name in ("LOCAL_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(mode=mode))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    assert resolvers.unused("runs/now") == "runs/now"
    assert (here / "runs/now").is_dir() == created


def test_a_folder_that_cannot_be_created_is_refused_in_one_line(here, monkeypatch):
    (here / "runs").write_text("")
    config = SimpleNamespace(mode=RunMode.RUN)
    monkeypatch.setattr(HydraConfig, "get", lambda: config)
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    with pytest.raises(SystemExit, match=r"^cwx: the folder runs/now cannot .* hydra\.run\.dir=…$"):
        resolvers.unused("runs/now")


REFUSED = {
    "hydra.run.dir=begun": "begun holds a run already: continue it with resume=begun, or choose",
    "hydra.run.dir=": "hydra.run.dir is empty: name a folder, or leave it out",
    "hydra.run.dir=file": "(File exists): choose another by hydra.run.dir=…",
    "hydra.run.dir=file/below": "(Not a directory): choose another by hydra.run.dir=…",
    "-m seed=0,1 hydra.sweep.dir=": "hydra.sweep.dir is empty",
    "-m seed=0,1 hydra.sweep.dir=file/below": "choose another by hydra.sweep.dir=…",
    "--config-dir nowhere": "--config-dir nowhere is not a folder",
    "--config-dir file": "--config-dir file is not a folder",
}


@pytest.mark.parametrize("words", REFUSED)
def test_an_unusable_folder_is_refused_before_anything_is_written(here, words):
    (here / "file").write_text("mine")
    (here / "begun").mkdir()
    (here / "begun" / STATUS).write_text("{}")
    with pytest.raises(UserError) as caught:
        prepare(*words.split())
    assert REFUSED[words] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in here.iterdir()) == ["begun", "file"]


def test_a_run_creates_its_folder_and_cfg_does_not(here):
    prepare("hydra.run.dir=looked", "--cfg", "job")
    assert not (here / "looked").exists()
    prepare("hydra.run.dir=new/folder")
    assert (here / "new/folder").is_dir()


@pytest.mark.parametrize("argv", [[], ["ls"]])
def test_ctrl_c_exits_without_a_traceback(monkeypatch, argv):
    from cwx.cli import app as outer
    from cwx.cli.commands import ls

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "main", interrupt)
    monkeypatch.setattr(ls, "main", interrupt)
    monkeypatch.setattr(sys, "argv", ["run.py", *argv])
    with pytest.raises(SystemExit) as caught:
        outer.main()
    assert caught.value.code == 130
