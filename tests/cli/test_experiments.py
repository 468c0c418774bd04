"""The list of experiments: the comments of all files are complete, and match Hydra and docs/."""

import json
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from support.paths import ROOT

from cwx.cli.commands import experiments
from cwx.cli.commands.experiments_markdown import GROUPS, RENEW, page
from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder
from cwx.cli.experiments import overrides_of, read_experiments, scale_remarks
from cwx.cli.run import register_resolvers
from cwx.errors import UserError

CONF = configuration_folder()
EXPERIMENTS = read_experiments(CONF)
# A paper, a section, and tables, figures or a description.
SUMMARY = re.compile(r"(CWX|ISCP|Dong et al\.|Neural Cleanse)[^:]*: .+\.")


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


def output(capsys, *argv):
    experiments.main(argv)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_comment_of_an_experiment_is_complete(name):
    experiment = EXPERIMENTS[name]
    assert SUMMARY.fullmatch(experiment.summary), experiment.summary
    assert experiment.part("Stated") or experiment.part("Chosen")
    # An experiment of a paper has its stated settings.
    assert experiment.part("Stated") or name.startswith("digits/")
    for part in experiment.parts:
        assert experiment.part(part)[-1] in ".:", f"{part} does not end in a full stop"


@pytest.mark.parametrize(
    ("name", "command"), [(e.name, command) for e in EXPERIMENTS.values() for command in e.commands]
)
def test_a_command_in_a_file_composes(name, command):
    assert command.startswith(("python run.py experiment=", "python run.py -m experiment="))
    overrides = overrides_of(command)
    assert name in overrides[0].partition("=")[2].split(",")
    compose_checked(CONF, overrides, multirun=" -m " in command, extra=None, resumed=None)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_choices_are_those_of_hydra(name):
    experiment = EXPERIMENTS[name]
    values = [line for line in experiment.overrides if "." in line.partition("=")[0]]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF.resolve())):
        config = compose("run", [f"experiment={name}", *values], return_hydra_config=True)
    hydra_choices = OmegaConf.to_container(config.hydra.runtime.choices)
    evaluation_networks = [
        g.removeprefix("network@evaluation_networks.")
        for g in hydra_choices
        if g.startswith("network@evaluation_networks.")
    ]
    assert sorted(experiment.choices_of("evaluation_networks")) == sorted(evaluation_networks)
    by_command = {override.partition("=")[0] for override in experiment.overrides}
    for group in {*GROUPS} - {"evaluation_networks", "method", "evaluation"} - by_command:
        assert experiment.choices[group] == hydra_choices[group], group
    # Hydra records no choices of lists; settings of a part that is not chosen have no _target_.
    parts = {
        g: [n for n, p in config[g].items() if "_target_" in p] for g in ("method", "evaluation")
    }
    assert sorted(experiment.choices_of("method")) == sorted(parts["method"])
    assert len(experiment.choices_of("evaluation")) == len(parts["evaluation"])


@pytest.mark.parametrize(
    "name", [n for n, experiment in EXPERIMENTS.items() if "(docs" in experiment.part("Time")]
)
def test_a_time_is_the_one_in_the_documentation(name):
    """Its numbers are in a section with the experiment's command."""
    time = EXPERIMENTS[name].part("Time")
    file, pattern = (
        re.search(r"\((docs/[\w/]+\.md)\)", time)[1],
        r"(\d[\d.]*|\bt?\w+) min(?:ute)?s?",
    )
    text = (ROOT / file).read_text()
    sections = [part for part in text.split("\n## ") if re.search(rf"[=,]{name}\b", part)]
    assert sections, f"{file} does not show experiment={name}"
    for number in re.findall(pattern, time.partition("(docs")[0]):
        matches = [part for part in sections if re.search(rf"\b{number}\b", part, re.IGNORECASE)]
        assert matches, f"{file} says nothing of {number} minutes for {name}: correct `Time:`"


def test_the_page_in_the_documentation_is_up_to_date():
    committed = (ROOT / "docs/experiments.md").read_text()
    current = page(list(EXPERIMENTS.values()), CONF) + "\n"
    assert committed == current, f"docs/experiments.md is out of date: {RENEW}"


def test_the_page_links_to_each_of_its_sections():
    text = (ROOT / "docs/experiments.md").read_text()
    # GitHub's anchors have only the letters, digits, hyphens and underscores of a heading.
    headings = {re.sub(r"[^\w-]", "", line[3:]) for line in re.findall(r"^## .*$", text, re.M)}
    links = re.findall(r"\]\(#([^)]*)\)", text)
    assert len(links) == len(EXPERIMENTS)
    assert {*links} <= headings


def test_all_experiments_or_some_are_listed(capsys):
    lines = output(capsys).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(EXPERIMENTS)
    some = output(capsys, "svhn/*", "digits/iscp").splitlines()
    assert [line.split()[0] for line in some[1:]] == ["digits/iscp", "svhn/cwx"]


def test_one_experiment_is_shown_in_full(capsys):
    text = output(capsys, "cifar10/backdoor")
    words = " ".join(text.split())
    for expected in (
        "CWX §5: Figures 2 and 18-21 on CIFAR-10.",
        " experiment=cifar10/backdoor ",
        "experiment=cifar10/backdoor corruption=badnets,blended,sig",
        "method distill, activation",
        "purification revealed",
        "stated target dog, rate 0.05",
        "chosen the first checkpoint is θ_0",
        "recipe.epochs 100 12",
        "experts.early.seeds [3,4,5,6,7,8,9] [10,11,…,49]",
    ):
        assert expected in words
    # A setting that does not differ.
    assert "corruption.rate" not in words


def test_required_files_are_listed_first(capsys):
    lines = output(capsys, "checkpoint/iscp").splitlines()
    assert lines[3].startswith("Needs a network, its weights, and test images")
    assert "data.source.root=<folder>" in lines[4]
    assert not any(line.endswith(" experiment=checkpoint/iscp") for line in lines)


def test_json_has_all_experiments(capsys):
    experiments_json = json.loads(output(capsys, "--json"))
    assert [e["name"] for e in experiments_json] == list(EXPERIMENTS)
    (noise,) = (e for e in experiments_json if e["name"] == "cifar10/noise")
    assert noise["choices"]["corruption"] == "label_noise"
    assert noise["choices"]["method"] == ["distill"]
    assert noise["commands"][1].endswith("corruption.rate=0,0.25,0.5,0.75")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["cifar10/nois"], "there is no experiment cifar10/nois: did you mean cifar10/noise?"),
        (["mnist/*"], "there is no experiment mnist/*"),
        (["--config-dir", "nowhere"], "nowhere is not there"),
        (["--markdwn"], "did you mean --markdown?"),
        (["--json", "--markdown"], "not allowed with"),
    ],
)
def test_an_unknown_name_is_refused(argv, message):
    with pytest.raises(UserError, match=re.escape(message)):
        experiments.main(argv)


MINE = """\
# @package _global_
# CWX §4: on my own images.
# One seed a job:
#   python run.py -m --config-dir {folder} experiment=mine/study \\
#       seed=0,1
# Chosen: everything.
defaults:
  - cifar10/cwx
  - override /method: [activation]
  - override /evaluation: [gallery]
  - _self_

data:
  per_class: 7
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "experiment/mine").mkdir(parents=True)
    (tmp_path / "experiment/mine/study.yaml").write_text(MINE.format(folder=tmp_path))
    (tmp_path / "experiment/inactive.yaml").write_text("# @package _global_\nseed: 1\n")
    return str(tmp_path)


def test_experiments_of_a_user_are_listed_and_shown(mine, capsys):
    names = [line.split()[0] for line in output(capsys, "--config-dir", mine).splitlines()[1:]]
    assert names == sorted([*EXPERIMENTS, "mine/study", "inactive"])
    text = output(capsys, "--config-dir", mine, "mine/study")
    assert f"--config-dir {mine} experiment=mine/study\n" in text
    assert f"-m --config-dir {mine} experiment=mine/study seed=0,1\n" in text
    words = text.split()
    assert words[words.index("method") + 1] == "activation"
    assert "resnet50," in words
    # The scale overrides the file.
    assert "data.total null 5000" in " ".join(words)
    text = output(capsys, "--config-dir", mine, "inactive")
    assert f"--config-dir {mine} experiment=inactive\n" in text
    page_text = output(capsys, "--config-dir", mine, "inactive", "--markdown")
    assert "Its file has no summary." in page_text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: [\n", "mine/study.yaml is not valid YAML"),
        ("defaults: [cifar10/cxw]\n", "builds on cifar10/cxw, which does not exist"),
    ],
)
def test_a_damaged_file_is_named(mine, text, message):
    (Path(mine) / "experiment/mine/study.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        experiments.main(["--config-dir", mine])


def test_remarks_on_the_small_scale_are_those_of_the_chosen_parts():
    assert scale_remarks(EXPERIMENTS["svhn/cwx"], CONF) == []
    (study,) = scale_remarks(EXPERIMENTS["gtsrb/cwx"], CONF)
    assert study.startswith("43 classes")
    (data, study) = scale_remarks(EXPERIMENTS["tiny_imagenet/cwx"], CONF)
    assert data.startswith("Images of half the side")
    assert study.startswith("200 classes")
