"""Which run or sweep `resume=` continues, with which settings, and which it refuses."""

import json

import pytest

from cwx.cli import resolvers
from cwx.cli import run as entry
from cwx.cli.config.compose import compose_checked, sweep_directory
from cwx.cli.config.groups import configuration_folder
from cwx.cli.config.hydra_files import SAVED
from cwx.cli.resume import check_launcher, check_same_job, resolve_resume
from cwx.errors import UserError
from cwx.storage.sweeps import Sweep

CONF = configuration_folder()
SWEPT = ["experiment=digits/quickstart", "seed=0,1"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    resolvers.register_resolvers()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolve(*overrides, multirun=False):
    return resolve_resume(CONF, overrides, multirun=multirun, extra=None)


def sweep(folder, *overrides, hydra=(), started="2026-01-01T00:00:00+00:00"):
    """Create the folder of a sweep with these settings."""
    Sweep(folder, overrides=overrides, hydra=hydra, command="").save()
    saved = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps({**saved, "started": started}))


def run(folder, *overrides):
    (folder / SAVED).mkdir(parents=True)
    (folder / SAVED / "overrides.yaml").write_text(json.dumps(overrides))
    (folder / SAVED / "config.yaml").write_text(
        json.dumps(compose_checked(CONF, overrides, multirun=False, extra=None, resumed=None))
    )
    (folder / "status.json").write_text('{"state": "interrupted"}')


def test_without_resume_nothing_is_continued():
    assert resolve("seed=1").overrides == ["seed=1"]
    assert resolve("seed=1", "resume=false").overrides == ["seed=1"]
    start = resolve(*SWEPT, multirun=True)
    assert (start.multirun, start.run, start.sweep) == (True, None, None)


def test_a_run_is_continued_with_its_settings_and_new_settings_for_hydra(here):
    run(here / "a run's", "seed=3")
    start = resolve("resume=a run's", "hydra.verbose=true")
    assert start.overrides == ["seed=3", "hydra.verbose=true", r"hydra.run.dir='a run\'s'"]
    assert str(start.run) == "a run's"
    assert not start.multirun


def test_the_newest_sweep_of_the_same_command_is_continued(here):
    sweeps = here / "runs/digits/quickstart"
    other = [SWEPT[0], "seed=0,1,2"]
    for name, overrides, day in (
        ("a", SWEPT, 1),
        ("b", SWEPT, 3),
        ("c", SWEPT, 2),
        ("d", other, 4),
    ):
        sweep(sweeps / name, *overrides, started=f"2026-01-0{day}T00:00:00+00:00")
    (sweeps / "run").mkdir()
    start = resolve(*SWEPT, "hydra.launcher.n_jobs=3", "optimize=a/b", "resume=true", multirun=True)
    assert str(start.sweep) == "runs/digits/quickstart/b"
    assert start.overrides == [
        *SWEPT,
        "hydra.launcher.n_jobs=3",
        "optimize=a/b",
        "hydra.sweep.dir='runs/digits/quickstart/b'",
        "hydra.launcher.resume=true",
    ]


def test_a_sweep_that_is_named_by_its_folder_is_continued_with_its_settings(here):
    hydra = ["hydra.launcher.n_jobs=2", "hydra.mode=MULTIRUN", "hydra.verbose=true"]
    sweep(here / "mine", *SWEPT, hydra=[*hydra, "hydra.sweep.dir=mine"])
    start = resolve("resume=mine", "hydra.launcher.n_jobs=1")
    assert start.multirun
    assert start.overrides == [
        *SWEPT,
        "hydra.verbose=true",
        "hydra.launcher.n_jobs=1",
        "hydra.sweep.dir='mine'",
        "hydra.launcher.resume=true",
    ]
    repeated = resolve(*SWEPT, "hydra.sweep.dir=mine", "resume=true", multirun=True)
    assert str(repeated.sweep) == "mine"


def test_a_sweep_of_another_launcher_is_continued_from_hydras_files(here):
    (here / "mine").mkdir()
    overrides = {"task": SWEPT, "hydra": ["hydra/launcher=basic"]}
    (here / "mine/multirun.yaml").write_text(json.dumps({"hydra": {"overrides": overrides}}))
    start = resolve("resume=mine")
    assert start.overrides == [*SWEPT, "hydra/launcher=basic", "hydra.sweep.dir='mine'"]
    assert start.multirun


REFUSED = {
    ("resume=",): "resume= is empty: name the folder",
    ("resume=nowhere",): "nowhere is not the folder of a run",
    ("resume=run", "seed=4"): "remove seed=4",
    ("resume=mine", "seed=4"): "remove seed=4",
    ("resume=run", "resume=mine"): "given twice",
    ("resume=true", "seed=4"): "resume=true continues the sweep that the same command started: add",
    ("-m", "resume=run"): "run is the folder of one run, not of a sweep: leave out -m",
    ("-m", "resume=true", "seed=0,1"): "no sweep in runs/digits/quickstart was started with these",
    ("-m", "resume=true", "seed=0,1", "hydra.sweep.dir=mine"): "the last one there, mine, was",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_an_impossible_resume_is_refused_with_a_remedy(here, words):
    run(here / "run", "seed=3")
    sweep(here / "mine", *SWEPT)
    overrides = [word for word in words if word != "-m"]
    with pytest.raises(UserError) as caught:
        resolve(*overrides, multirun="-m" in words)
    assert REFUSED[words] in str(caught.value)


def test_a_damaged_sweep_is_refused_with_a_remedy(here):
    sweep(here / "mine", *SWEPT)
    (here / "mine/sweep.json").write_text("{")
    with pytest.raises(UserError, match=r"no readable sweep\.json \(.*\): continue its jobs one"):
        resolve("resume=mine")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs is 0: give 1 or more"),
        ("hydra.launcher.n_job=2", "did you mean hydra.launcher.n_jobs?"),
        ("hydra.launcher.n_jobs=two", "hydra.launcher.n_jobs is 'two': it takes int"),
        ("hydra.launcher.fail_fast=1", "hydra.launcher.fail_fast is 1: it takes bool"),
        ("hydra.launcher.gpus_per_job=-1", "hydra.launcher.gpus_per_job is -1"),
        (
            "hydra/launcher=process",
            "no hydra/launcher=process: did you mean hydra/launcher=processes?",
        ),
    ],
)
def test_the_settings_of_the_launcher_are_checked(override, message):
    with pytest.raises(UserError) as caught:
        check_launcher(CONF, [*SWEPT, override], extra=None)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_launchers_check_themselves():
    check_launcher(CONF, [*SWEPT, "hydra/launcher=basic"], extra=None)
    check_launcher(CONF, [*SWEPT, "hydra.launcher.gpus_per_job=2"], extra=None)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=0,1"], "digits/quickstart"),
        (["experiment=cifar10/noise", "seed=0,1"], "cifar10/noise"),
        (["experiment=cifar10/adversarial,cifar10/natural"], "cifar10/adversarial+natural"),
    ],
)
def test_the_folder_of_a_sweep_is_named_by_its_experiments(overrides, name):
    directory, launcher = sweep_directory(CONF, overrides, extra=None)
    assert str(directory.parent) == f"runs/{name}"
    assert launcher["n_jobs"] == 1


def test_a_job_must_have_the_same_settings_and_configuration(here):
    run(here / "job", "seed=3")
    check_same_job(CONF, here / "job", ["seed=3"], extra=None)
    with pytest.raises(UserError, match=r"was started with seed=3, not with seed=4: give"):
        check_same_job(CONF, here / "job", ["seed=4"], extra=None)
    config = json.loads((here / "job" / SAVED / "config.yaml").read_text())
    (here / "job" / SAVED / "config.yaml").write_text(json.dumps({**config, "store": "else"}))
    with pytest.raises(UserError, match="store was 'else' and is 'store'"):
        check_same_job(CONF, here / "job", ["seed=3"], extra=None)


# Changes to a saved configuration, as another version of cwx would have written it.
OTHER_VERSIONS = {
    "an unknown group": (lambda c: c.update(procedure=c.pop("recipe")), "unknown key procedure"),
    "an unknown key": (lambda c: c["network"].update(filters=3), "unknown key network.filters"),
    "an unknown target": (
        lambda c: c.update(_target_="cwx.study.Study"),
        "_target_ is 'cwx.study.Study'",
    ),
    "no target": (lambda c: c.pop("_target_"), "_target_ is missing"),
    "an unknown resolver": (lambda c: c.update(seed="${renamed:}"), "renamed"),
}


def change_version(run_folder, change):
    file = run_folder / SAVED / "config.yaml"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    status = {"state": "interrupted", "versions": {"cwx": "0.1.2"}, "commit": "abc1234"}
    (run_folder / "status.json").write_text(json.dumps(status))


@pytest.mark.parametrize("name", OTHER_VERSIONS)
def test_a_run_of_another_version_is_refused_with_that_version_in_one_line(here, monkeypatch, name):
    change, reason = OTHER_VERSIONS[name]
    run(here / "old", "seed=3")
    change_version(here / "old", change)
    monkeypatch.setattr("sys.argv", ["run.py", "resume=old"])
    with pytest.raises(SystemExit) as refused:
        entry.main()
    message = refused.value.code
    assert message.startswith(
        "cwx: old was started by another version of cwx (version 0.1.2, commit abc1234)"
    )
    assert reason in message
    assert "check out that commit to continue the run, or start the study anew" in message
    assert "\n" not in message


def test_a_job_and_a_sweep_of_another_version_are_refused(here):
    sweep(here / "mine", *SWEPT)
    run(here / "mine/0", "seed=0")
    change, _ = OTHER_VERSIONS["an unknown group"]
    change_version(here / "mine/0", change)
    with pytest.raises(UserError, match="mine/0 was started by another version"):
        resolve("resume=mine")
    with pytest.raises(UserError, match="mine/0 was started by another version"):
        check_same_job(CONF, here / "mine/0", ["seed=0"], extra=None)


def test_a_run_without_version_in_its_status_is_refused_too(here):
    run(here / "old", "seed=3")
    change_version(here / "old", OTHER_VERSIONS["an unknown group"][0])
    (here / "old/status.json").write_text("{")
    with pytest.raises(UserError, match="version unknown, commit unknown"):
        resolve("resume=old")
