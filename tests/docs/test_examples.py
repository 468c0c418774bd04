"""The examples of docs/extend.md: the files on the page are those that run; commands compose."""

import csv
import json
import re
import shlex
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.entry import run
from support.paths import ROOT

from cwx.cli import resolvers
from cwx.cli import run as entry
from cwx.cli.commands import experiments
from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder
from cwx.cli.experiments import overrides_of
from cwx.errors import UserError

EXAMPLES = ROOT / "docs/examples"
PAGE = (ROOT / "docs/extend.md").read_text()
SNIPPETS = dict(re.findall(r"\[`[^`]+`\]\(examples/([^)]+)\):\n\n```\w+\n(.*?)```", PAGE, re.S))
LINES = re.findall(r"^    (python run\.py (?:.*\\\n)*.*)$", PAGE, re.M)
COMMANDS = [re.sub(r"\\\n\s*", "", line) for line in LINES]
STUDIES = ["own/study", "own/folder", "own/checkpoint"]


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_equals_its_file(name):
    assert SNIPPETS[name] == (EXAMPLES / name).read_text(), (
        f"copy docs/examples/{name} into the page"
    )


def test_every_file_is_on_the_page():
    files = {str(f.relative_to(EXAMPLES)) for f in EXAMPLES.rglob("*.*") if f.suffix != ".pyc"}
    assert files == {*re.findall(r"\(examples/([^)]+)\)", PAGE)} | {*SNIPPETS}
    assert {"confident.py", "method/confident.yaml"} <= SNIPPETS.keys()


def test_the_recording_on_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"^## Trajectory\n.*?```python\n(.*?)```", PAGE, re.S | re.M)
    exec(compile(example, "docs/extend.md", "exec"), {})
    assert capsys.readouterr().out == "(0, 1, 2, 3)\n"


@pytest.fixture
def importable(monkeypatch):
    resolvers.register_resolvers()
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.split()[2].isalpha()])
def test_a_command_on_the_page_composes(command):
    words = shlex.split(command.replace("<folder>", "x"))
    extra = str(ROOT / words[words.index("--config-dir") + 1]) if "--config-dir" in words else None
    overrides = overrides_of(command)
    compose_checked(
        configuration_folder(), overrides, multirun="-m" in words, extra=extra, resumed=None
    )


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.confident.learning_rat=1", "did you mean method.confident.learning_rate?"),
        ("network.widht=3", "did you mean network.width?"),
        ("data.source.sid=3", "did you mean data.source.side?"),
        ("corruption.rate=often", "corruption.rate is 'often': it takes float"),
        ("attack@evaluation.accuracy.attacks.noise=nois", "did you mean attack=noise?"),
        ("network._target_=wider.Wide", "there is no package wider"),
    ],
)
def test_settings_of_own_parts_are_checked_before_their_import(override, message):
    with pytest.raises(UserError, match=re.escape(message)):
        compose_checked(
            configuration_folder(), ["experiment=own/study", override],
            multirun=False, extra=str(EXAMPLES), resumed=None,
        )  # fmt: skip


def test_the_experiments_are_listed_and_shown(capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    experiments.main(["--config-dir", str(EXAMPLES), "own/*"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == sorted(STUDIES)
    experiments.main(["--config-dir", str(EXAMPLES), "own/study"])
    text = " ".join(capsys.readouterr().out.split())
    assert "a network trained on stripes" in text
    assert "data stripes network wide" in text
    assert "recipe.epochs 10 12" in text


def write_images(folder):
    """Red and blue images, larger than the input of the study."""
    for split, count in (("train", 12), ("test", 4)):
        for name, colour in (("red", (220, 40, 40)), ("blue", (30, 60, 200))):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                shade = tuple(c + 2 * number for c in colour)
                Image.new("RGB", (20, 24), shade).save(folder / split / name / f"{number}.png")


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_the_studies_on_the_page_run(tmp_path, monkeypatch):
    """With the command of a user, but all studies in one process."""
    write_images(tmp_path / "my_images")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from wide import Wide

    torch.manual_seed(0)
    network = Wide(in_channels=1, image_size=(8, 8), num_classes=3, width=16)
    torch.save(network.state_dict(), tmp_path / "wide.pt")
    code, output = run(
        tmp_path, "-m", "--config-dir", str(EXAMPLES), f"experiment={','.join(STUDIES)}",
        "logger=[csv]", "hydra/launcher=basic", "hydra.sweep.dir=all",
    )  # fmt: skip
    assert code == 0, output
    for job in range(3):
        status = json.loads((tmp_path / f"all/{job}/status.json").read_text())
        assert (status["state"], status["experiment"]) == ("finished", STUDIES[job])
    _check_study(tmp_path / "all/0")
    # Two classes of uniform colours are easy to classify; images have three channels.
    folder = tmp_path / "all/1"
    assert metrics(folder)["accuracy/expert/clean"] == 1
    images = load_file(folder / "explanations.safetensors")["activation/images"]
    assert images.shape == (4, 3, 16, 16)
    # An untrained checkpoint is explained without training.
    imported = tmp_path / "all/2"
    assert metrics(imported)["discriminative/confident/expert"] == 1
    assert metrics(imported)["accuracy/expert/clean"] < 0.9
    assert {"confident/images", "confident/labels"} <= {
        *load_file(imported / "explanations.safetensors")
    }
    _check_continued(tmp_path, monkeypatch)


def _check_study(folder):
    values = metrics(folder)
    explanations = load_file(folder / "explanations.safetensors")
    # Own data with three classes, and own method.
    assert explanations["confident/images"].shape == (6, 1, 8, 8)
    assert explanations["confident/labels"].tolist() == [0, 0, 1, 1, 2, 2]
    # The network learns stripes, some of them inverted; it classifies the explanations correctly.
    assert values["accuracy/expert/clean"] > 0.9
    assert values["discriminative/confident/expert"] == 1
    assert values["discriminative/confident/expert/confidence"] > 0.6
    # Own attack, evaluation and corruption.
    assert values["accuracy/expert/noise"] > 0.5
    assert values["contrast/confident"] > 0.1
    assert values["corruption/effective_rate"] == 0.25
    assert int(load_file(folder / "corrupted.safetensors")["is_corrupted"].sum()) == 30
    with (folder / "tables/contrast.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == [
            "horizontal",
            "vertical",
            "diagonal",
        ]
    # The loss of the method decreases.
    with (folder / "logs/version_0/metrics.csv").open() as file:
        curve = [float(r["confident/loss"]) for r in csv.DictReader(file) if r["confident/loss"]]
    assert curve[-1] < curve[0]
    assert not list((folder / "checkpoints").iterdir())
    page = (folder / "report.html").read_text()
    for text in ("most confident", "contrast", "diagonal", "own/study"):
        assert text in page
    assert (folder / "figures/gallery.png").stat().st_size > 0


def _check_continued(folder, monkeypatch):
    """Without --config-dir, which the run has recorded."""
    resolvers.register_resolvers()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(EXAMPLES)])
    words, resumed = entry._prepare(["resume=all/0"])
    assert resumed
    assert words[words.index("--config-dir") + 1] == str(EXAMPLES)
    assert sys.path[-1] == str(EXAMPLES)
