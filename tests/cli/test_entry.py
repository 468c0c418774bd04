"""The command line answers help, completion and errors without importing torch."""

import os
import re
import subprocess
import sys

import pytest
from support.paths import ROOT


def run(*arguments):
    line = "python run.py method.distill.iter"
    completion = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    return subprocess.run(
        [sys.executable, "-X", "importtime", "run.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **completion},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "resume=runs/"),
        (["--help"], 0, "scale: paper, small"),
        (["--help", "--config-dir", "nowhere"], 1, "cwx: --config-dir nowhere is not a folder"),
        (["-h", "--config-dir", str(ROOT / "docs/examples")], 0, "own/study"),
        (["experiment=cifar10/cwx", "scale=small", "--cfg", "job"], 0, "width: 32"),
        (["--cfg", "job"], 0, "steps: 20"),
        (["-sc", "query=bash"], 0, "method.distill.iterations="),
        (["sed=1"], 1, "cwx: unknown key sed: did you mean seed?"),
        (["experiment=none"], 1, "cwx: there is no experiment=none"),
        (["resume=nowhere"], 1, "cwx: nowhere is not the folder of a run"),
        (["resume=nowhere", "seed=1"], 1, "remove seed=1"),
        (["--help"], 0, "python run.py ls "),
        (["scale=small", "--cfg", "job", "--resolve"], 0, "id: unnamed"),
        (["ls", "--help"], 0, "usage: python run.py ls"),
        (["report", "--help"], 0, "usage: python run.py report"),
        (["experts", "--help"], 0, "usage: python run.py experts"),
        (["experiments", "--help"], 0, "usage: python run.py experiments"),
        (["experiments"], 0, "cifar10/iscp_features "),
        (["experiments", "cifar10/cwx"], 0, "recipe.epochs "),
        (["experiments", "cifar10/cwxx"], 1, "there is no experiment cifar10/cwxx: did you mean"),
        (["--help"], 0, "python run.py experiments "),
        (["ls", "conf"], 0, "no runs in conf"),
        (["lss"], 1, "cwx: there is no command lss: did you mean ls?"),
        (["report", "nonfolder"], 1, "cwx: nonfolder is not there"),
        (["experts", "--store", "nowhere"], 1, "cwx: nowhere is not there"),
        (["--hlp"], 1, "cwx: there is no --hlp: did you mean --help?"),
        (["seed=1", "ls"], 1, "cwx: ls is not a setting: write key=value"),
        (["-m", "seed=1,2", "--cfg", "job"], 1, "cwx: --cfg and --multirun cannot be combined"),
        (["scale=null"], 1, "cwx: there is no scale=null: there are paper, small"),
        (["-m", "scale=small,null"], 1, "cwx: there is no scale=null: there are paper, small"),
    ],
)
def test_the_command_line_answers_without_torch(arguments, code, text):
    process = run(*arguments)
    assert process.returncode == code
    assert text in process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert not imported & {"torch", "lightning", "wandb", "torchvision"}


def test_help_lists_the_parts_of_a_study_and_the_parts_of_parts():
    text = run("--help").stdout
    _, study, parts = re.split(r"^Parts of .*$", text, flags=re.MULTILINE)
    groups = [re.findall(r"^  (\w+): \w", block, re.MULTILINE) for block in (study, parts)]
    assert groups == [
        ["data", "corruption", "dataset_construction", "network", "recipe", "experts", "adversary",
         "fine_tuning", "method", "purification", "evaluation", "trainer", "precision", "logger",
         "experiment", "scale"],
        ["attack", "augment", "canvas", "covariance", "pooling", "taxonomy", "unroll"],
    ]  # fmt: skip
    files = {path.stem for path in (ROOT / "conf/evaluation").glob("*.yaml")}
    assert files <= set(re.findall(r"\w+", study))
