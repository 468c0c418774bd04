"""Which folder a run gets."""

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
    return entry._prepared(argv)


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(here):
    assert run_directory.unused("runs/mine/now") == "runs/mine/now"
    assert run_directory.unused("runs/mine/now") == "runs/mine/now"
    for name in ("runs/mine/now-2", "runs/mine/now-3"):
        # As another process would ask.
        run_directory.unused.cache_clear()
        assert run_directory.unused("runs/mine/now") == name
        assert (here / name).is_dir()


@pytest.mark.parametrize(
    ("mode", "environment", "made"),
    [
        (RunMode.RUN, {}, True),
        (RunMode.MULTIRUN, {}, False),
        (RunMode.RUN, {"LOCAL_RANK": "1"}, False),
        (RunMode.RUN, {"SLURM_NTASKS": "2"}, False),
    ],
)
def test_a_run_by_itself_has_its_folder_made_once(here, monkeypatch, mode, environment, made):
    for name in ("LOCAL_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(mode=mode))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    assert resolvers.unused("runs/now") == "runs/now"
    assert (here / "runs/now").is_dir() == made


def test_a_folder_of_runs_that_cannot_be_made_ends_in_one_line(here, monkeypatch):
    (here / "runs").write_text("")
    known = SimpleNamespace(mode=RunMode.RUN)
    monkeypatch.setattr(HydraConfig, "get", lambda: known)
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
def test_refused_before_anything_is_written(here, words):
    (here / "file").write_text("mine")
    (here / "begun").mkdir()
    (here / "begun" / STATUS).write_text("{}")
    with pytest.raises(UserError) as caught:
        prepare(*words.split())
    assert REFUSED[words] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in here.iterdir()) == ["begun", "file"]


def test_a_new_folder_is_taken_and_looking_takes_none(here):
    prepare("hydra.run.dir=looked", "--cfg", "job")
    assert not (here / "looked").exists()
    prepare("hydra.run.dir=new/folder")
    assert (here / "new/folder").is_dir()


@pytest.mark.parametrize("argv", [[], ["ls"]])
def test_ctrl_c_leaves_no_traceback(monkeypatch, argv):
    from cwx.cli import app as outer
    from cwx.cli.commands import ls

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "main", interrupted)
    monkeypatch.setattr(ls, "main", interrupted)
    monkeypatch.setattr(sys, "argv", ["run.py", *argv])
    with pytest.raises(SystemExit) as ended:
        outer.main()
    assert ended.value.code == 130
