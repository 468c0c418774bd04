"""The command line answers help, completion and errors without importing torch."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest
from support.paths import ROOT

# Forks once per command line, so that Python and Hydra start only once. Prints one JSON line for
# each: the exit status, the output, and the names of the packages that were imported.
SERVER = """
import contextlib, io, json, os, sys

import hydra
import cwx.cli.app

for line in sys.stdin:
    reader, writer = os.pipe()
    if os.fork() == 0:
        status, output = 0, io.StringIO()
        sys.argv = ["run.py", *json.loads(line)]
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                cwx.cli.app.main()
            except SystemExit as exit:
                # A message instead of a number means status 1.
                status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
                if isinstance(exit.code, str):
                    print(exit.code)
        packages = sorted({name.partition(".")[0] for name in sys.modules})
        with os.fdopen(writer, "w") as file:
            json.dump([status, output.getvalue(), packages], file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        print(file.read(), flush=True)
    os.wait()
"""


@dataclass(frozen=True)
class Answer:
    status: int
    output: str
    packages: set[str]


@pytest.fixture(scope="module")
def answer():
    """Runs a command line of `run.py`."""
    line = "python run.py method.distill.iter"
    completion = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=ROOT,
        env={**os.environ, **completion},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:

        def run(arguments):
            server.stdin.write(json.dumps(arguments) + "\n")
            server.stdin.flush()
            status, output, packages = json.loads(server.stdout.readline())
            return Answer(status, output, {*packages})

        yield run
        server.stdin.close()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "resume=runs/"),
        (["--help"], 0, "scale: medium, paper, small"),
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
        (["scale=null"], 1, "cwx: there is no scale=null: there are medium, paper, small"),
        (
            ["-m", "scale=small,null"],
            1,
            "cwx: there is no scale=null: there are medium, paper, small",
        ),
    ],
)
def test_the_command_line_answers_without_torch(answer, arguments, code, text):
    result = answer(arguments)
    assert result.status == code, result.output
    assert text in result.output
    assert "Traceback" not in result.output
    assert not result.packages & {"torch", "lightning", "wandb", "torchvision"}


def test_a_process_of_the_shell_ends_with_the_status_and_the_message():
    process = subprocess.run(
        [sys.executable, "run.py", "sed=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.startswith("cwx: unknown key sed: did you mean seed?")


def test_help_lists_the_parts_of_a_study_and_the_parts_of_parts(answer):
    text = answer(["--help"]).output
    _, study, parts = re.split(r"^Parts of .*$", text, flags=re.MULTILINE)
    groups = [re.findall(r"^  (\w+): \w", block, re.MULTILINE) for block in (study, parts)]
    assert groups == [
        ["data", "corruption", "dataset_construction", "network", "recipe", "experts", "adversary",
         "fine_tuning", "method", "purification", "cure", "evaluation", "trainer", "precision",
         "logger", "experiment", "scale"],
        ["attack", "augment", "canvas", "covariance", "pooling", "taxonomy", "unroll"],
    ]  # fmt: skip
    files = {path.stem for path in (ROOT / "conf/evaluation").glob("*.yaml")}
    assert files <= set(re.findall(r"\w+", study))
