"""The command line of `cwx inspect`."""

import contextlib
import json
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from support.configurations import check

from cwx.cli.commands import inspect as command
from cwx.cli.commands.inspect_results import FAILURE
from cwx.cli.commands.inspect_sweep import settings_yaml
from cwx.cli.config.override_text import override, parse_override
from cwx.cli.resolvers import register_resolvers
from cwx.errors import UserError
from cwx.report import run as report_run
from cwx.report.run import read_run
from cwx.study import inspection as finder
from cwx.study.inspection import Inspection
from cwx.study.inspection_budget import budget

# The classes with images; YAML would read some of the names as numbers or booleans.
CLASSES = ["010", "1", "yes", "c,d"]
SETTINGS = {
    "network": "external",
    "network.build._target_": "torchvision.models.resnet18",
    "network.build.num_classes": 10,
    "experts.checkpoints": ["it's, a [model].pt"],
    "experts.check_accuracy": False,
    "data.source.root": "images of mine",
    "data.source.classes": ["a b", "c,d", "1"],
    "data.source.channels": 3,
    "data.source.size": 32,
    "data.source.resize": None,
    "data.mean": [0.5, 0.4, 0.3],
    "data.std": [0.2, 0.2, 0.2],
    "notes": ["Found: x; y. It's 41.2% {so} [far]."],
    **budget(5, seconds=1e-3, present=CLASSES, classes=5, images=99, side=32).settings,
}


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The requests and the command lines of the studies."""
    requests, studies = [], []

    def find(request):
        requests.append(request)
        return Inspection(settings=SETTINGS, ways=[{"network": "x", "accuracy": 0.9}], minutes=1.0)

    def study(words):
        studies.append(words)

    monkeypatch.setattr(finder, "inspect", find)
    monkeypatch.setattr(command, "_study", study)
    monkeypatch.chdir(tmp_path)
    return requests, studies


def test_the_found_settings_compose_a_study(calls):
    command.main(["model.pt", "images", "method.iscp.passes=7", "--minutes", "3"])
    (request,), (words,) = calls
    assert (request.weights, request.images, request.minutes) == (
        Path("model.pt"), Path("images"), 3.0,
    )  # fmt: skip
    config = check(*words)
    assert config["experts"]["checkpoints"] == SETTINGS["experts.checkpoints"]
    assert config["data"]["source"]["classes"] == SETTINGS["data.source.classes"]
    assert config["method"]["iscp"]["classes"] == CLASSES
    assert config["network"]["build"]["num_classes"] == 10
    assert list(config["method"]) == SETTINGS["method"]
    assert config["method"]["iscp"]["passes"] == 7
    assert config["notes"] == SETTINGS["notes"]


def test_several_files_are_a_sweep_with_settings_of_their_own(calls):
    command.main(["a.pt", "b/it's.pt", "images", "seed=3"])
    (words,) = calls[1]
    folder = words[words.index("--config-dir") + 1]
    files = sorted(Path(folder, "inspected").iterdir())
    assert [file.name for file in files] == ["0-a.yaml", "1-it_s.yaml"]
    overrides = [word for word in words[3:] if "=" in word and not word.startswith("hydra.")]
    assert "+inspected=0-a,1-it_s" in overrides
    for stem in ("0-a", "1-it_s"):
        single = [f"+inspected={stem}" if "inspected" in word else word for word in overrides]
        config = check(*single, extra=folder)
        assert config["experts"]["checkpoints"] == SETTINGS["experts.checkpoints"]
        assert config["network"]["build"]["num_classes"] == 10
        assert list(config["method"]) == SETTINGS["method"]
        assert config["seed"] == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["model.pt"], "name a file of weights and a folder of images"),
        (["m.pt", "images", "--mean", "0.5"], "--mean and --std belong together"),
        (["m.pt", "images", "--resize", "256"], "--resize needs --size"),
        (["m.pt", "images", "--minutes", "0"], "--minutes is 0: give a time above 0"),
        (["m.pt", "images", "--mean", "x", "--std", "1"], "argument --mean: invalid"),
        (["m.pt", "images", "--netwrk", "x"], "there is no --netwrk: did you mean --network"),
        (["a.pt", "b.pt", "images", "--cfg", "job"], "--cfg is for one file"),
        (["a.pt", "b.pt", "images", "seed=0,1"], "seed=0,1 cannot be set with several files"),
        (["a.pt", "b.pt", "images", "hydra.sweep.subdir=x"], "hydra.sweep.subdir=x cannot be set"),
        (["a.pt", "b.pt", "images", "hydra/sweeper=optuna"], "hydra/sweeper=optuna cannot be set"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(calls, capsys, argv, message):
    with pytest.raises(SystemExit) as caught:
        command.main(argv)
    assert caught.value.code == command.REFUSED == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("cwx: ")
    assert calls[1] == []


@pytest.mark.parametrize(
    "error", [ValueError("the file is\nof another kind"), SystemExit("cwx: it is refused")]
)
def test_refusals_of_the_study_have_status_2(calls, monkeypatch, capsys, error):
    def refuse(_):
        raise error

    monkeypatch.setattr(command, "_study", refuse)
    with pytest.raises(SystemExit) as caught:
        command.main(["model.pt", "images"])
    assert caught.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last in ("cwx: the file is of another kind", "cwx: it is refused")


def test_json_alone_is_on_standard_output(calls, monkeypatch, capsys, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "status.json").write_text(json.dumps({"state": "finished", "experiment": "inspect"}))
    (run / "metrics.json").write_text(json.dumps({"accuracy/expert/clean": 0.75}))

    def study(_):
        sys.stdout.write("noise")
        return run

    monkeypatch.setattr(command, "_study", study)
    command.main(["model.pt", "images", "--json"])
    out = capsys.readouterr()
    result = json.loads(out.out)
    assert result["metrics"] == {"accuracy/expert/clean": 0.75}
    assert result["result"] == "The network classifies 75 % of the test images correctly."
    assert result["notes"] == SETTINGS["notes"]
    assert "noise" in out.err


def exits(status):
    """A command ends with this exit status; 0 without an exit."""
    if status == 0:
        return contextlib.nullcontext()
    return pytest.raises(SystemExit, match=str(status))


def write_run(run, number, verdict):
    (run / "tables").mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"state": "finished", "experiment": "inspect"}))
    (run / "metrics.json").write_text(json.dumps({"accuracy/expert/clean": number / 100}))
    (run / "tables" / "verdict.csv").write_text(f"verdict,class\n{verdict},{number}\n")


# Of eleven files, so that the order of the numbers is not that of their texts.
FILES = [f"{letter}.pt" for letter in "abcdefghijk"]


@pytest.mark.parametrize(("suspicious", "status"), [(9, command.SUSPICIOUS), (None, 0)])
@pytest.mark.parametrize(
    ("own", "folder"),
    [
        (None, None),
        ("hydra.sweep.dir=out/${now:%Y}", f"out/{datetime.now():%Y}"),
        (override("hydra.sweep.dir", "it's, [here]"), "it's, [here]"),
    ],
)
def test_runs_are_read_once_in_the_order_of_the_files(
    calls, monkeypatch, capsys, suspicious, status, own, folder
):
    reads, folders = [], []

    def read(folder):
        reads.append(folder.name)
        return read_run(folder)

    def study(words):
        (word,) = [w for w in words if w.startswith("hydra.sweep.dir=")]
        folders.append(Path(parse_override(word).value()))
        for number in range(len(FILES)):
            verdict = "suspicious" if number == suspicious else ""
            write_run(folders[0] / str(number), number, verdict)

    monkeypatch.setattr(report_run, "read_run", read)
    monkeypatch.setattr(command, "_study", study)
    words = [own] if own else []
    with exits(status):
        command.main([*FILES, "images", "--json", *words])
    assert reads == [str(number) for number in range(len(FILES))]
    results = json.loads(capsys.readouterr().out)
    assert [result["weights"] for result in results] == FILES
    accuracies = [result["metrics"]["accuracy/expert/clean"] for result in results]
    assert accuracies == [number / 100 for number in range(len(FILES))]
    assert [result["verdict"]["class"] for result in results] == [str(i) for i in range(11)]
    assert [result["page"] for result in results] == [
        str(folders[0] / str(number) / "report.html") for number in range(len(FILES))
    ]
    assert folder is None or folders == [Path(folder)]


@pytest.mark.parametrize(("suspicious", "status"), [(0, command.SUSPICIOUS), (None, FAILURE)])
def test_a_failed_job_loses_no_result_of_the_others(calls, monkeypatch, capsys, suspicious, status):
    def study(words):
        (word,) = [w for w in words if w.startswith("hydra.sweep.dir=")]
        folder = Path(parse_override(word).value())
        for number in (0, 2):
            write_run(folder / str(number), number, "suspicious" if number == suspicious else "")
        raise SystemExit(FAILURE)

    monkeypatch.setattr(command, "_study", study)
    with exits(status):
        command.main(["a.pt", "b.pt", "c.pt", "images", "--json"])
    results = json.loads(capsys.readouterr().out)
    assert [result["state"] for result in results] == ["finished", "failed", "finished"]
    assert [result["weights"] for result in results] == ["a.pt", "b.pt", "c.pt"]
    assert results[1]["folder"] is None
    assert results[2]["metrics"] == {"accuracy/expert/clean": 0.02}


def test_an_interrupted_sweep_has_no_result(calls, monkeypatch, capsys):
    def study(_):
        raise SystemExit(130)

    monkeypatch.setattr(command, "_study", study)
    with exits(130):
        command.main(["a.pt", "b.pt", "images", "--json"])
    assert not capsys.readouterr().out


def test_pickled_networks_of_a_bank_are_taken_apart_as_the_suspect(calls, monkeypatch, tmp_path):
    bank = tmp_path / "bank"
    bank.mkdir()
    torch.save({"weight": torch.zeros(2)}, bank / "state.pt")
    torch.save(torch.nn.Linear(2, 2), bank / "whole.pt")

    def trusted(weights, folder, import_path):
        return folder / weights.name

    monkeypatch.setattr(finder, "trusted_weights", trusted)
    monkeypatch.setattr(command, "read_results", lambda *_: [])
    for words, whole in ((["--trust-pickle"], Path("store/whole.pt")), ([], bank / "whole.pt")):
        command.main(["net.pt", "images", "--bank", str(bank), *words])
        assert calls[0][-1].bank == [bank / "state.pt", whole]


def test_the_study_s_command_line_is_that_of_the_process_only_while_it_runs(monkeypatch):
    seen = []
    monkeypatch.setattr("cwx.cli.run.main", lambda: seen.append(sys.argv[1:]))
    before = list(sys.argv)
    command._study(["a=1"])
    assert seen == [["a=1"]]
    assert sys.argv == before


@pytest.mark.parametrize(
    ("words", "store"),
    [
        ([], "store"),
        (["store=a", "seed=3", "store=b"], "b"),
        (["store='my store'"], "my store"),
        (["store=~/experts"], str(Path.home() / "experts")),
        ([override("store", "it's, a [store]")], "it's, a [store]"),
    ],
)
def test_trusted_weights_are_kept_in_the_study_s_store(calls, monkeypatch, words, store):
    stores = []

    def trusted(weights, folder, import_path):
        stores.append(folder)
        return weights

    monkeypatch.setattr(finder, "trusted_weights", trusted)
    monkeypatch.setattr(command, "read_results", lambda *_: [])
    command.main(["--trust-pickle", "net.pt", "images", *words])
    assert stores == [Path(store)]


def test_overrides_of_all_settings_are_read_back():
    words = [
        ("+" if command._is_argument(key) else "") + override(key, value)
        for key, value in SETTINGS.items()
    ]
    assert check("experiment=inspect", *words)["data"]["mean"] == [0.5, 0.4, 0.3]


def test_no_settings_file_holds_an_interpolation():
    with pytest.raises(UserError, match="rename it"):
        settings_yaml(SETTINGS | {"data.source.classes": ["a", "${oc.env:HOME}"]})
