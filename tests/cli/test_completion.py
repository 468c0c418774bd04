"""Shell completion of commands, settings, choices and folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.run_folders import make_run

from cwx.cli import app
from cwx.cli.completion import complete, print_completions
from cwx.cli.config.groups import options
from cwx.cli.run import register_resolvers

CONF = ROOT / "conf"


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


def completions(line):
    return complete(line, app.COMMANDS, CONF)


@pytest.mark.parametrize("scale", ["", "scale=small "])
def test_every_experiment_is_completed(scale):
    experiments = sorted(options([CONF])["experiment"])
    assert completions(f"{scale}experiment=") == [f"experiment={name}" for name in experiments]
    assert completions("experiment=digits/q") == ["experiment=digits/quickstart"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("exp", {"experiment=", "experiments", "experts", "experts.", "experts="}),
        ("sc", {"scale="}),
        ("scale=", {"scale=medium", "scale=paper", "scale=small"}),
        ("-m corruption=badnets,bl",
         {"corruption=badnets,blended", "corruption=badnets,blended_picture"}),
        ("method=[iscp,iscp_l", {"method=[iscp,iscp_learned_canvas"}),
        ("augment@recipe.augment=s", {"augment@recipe.augment=shift_flip"}),
        ("+network@evaluation_networks.a=vgg",
         {f"+network@evaluation_networks.a=vgg{layers}" for layers in (11, 16)}),
        ("network=mlp network.wi", {"network.width="}),
        ("method.distill.iterat", {"method.distill.iterations="}),
        ("l", {"ls", "logger=", "logger."}),
        ("seed=1 l", {"logger=", "logger."}),
        ("seed=1 fi", {"fine_tuning=", "fine_tuning."}),
        ("experiment=none/such see", set()),
        ("nothing.like.it", set()),
        ("ls --st", {"--state"}),
        ("ls --state failed --js", {"--json"}),
        ("experts pr", {"prune"}),
        ("experts prune --ol", {"--older-than"}),
        ("experiments svhn", {"svhn/cwx"}),
        ("experiments svhn/cwx digits/q", {"digits/quickstart"}),
        ("experiments --js", {"--json"}),
        ("experiments --config-dir ru", {"runs/"}),
        ("report ru", {"runs/"}),
        ("report runs/", {"runs/a/", "runs/b/"}),
        ("resume=runs/", {"resume=runs/a/", "resume=runs/b/"}),
        ("report nowhere/", set()),
    ],
)  # fmt: skip
def test_the_last_word_of_a_line_is_completed(tmp_path, monkeypatch, line, expected):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", ".c"):
        make_run(tmp_path / "runs" / name)
    (tmp_path / "runs" / "file").touch()
    assert completions(line) == sorted(expected)


def test_an_empty_line_is_completed_with_commands_and_settings():
    names = completions("")
    assert {*app.COMMANDS, "experiment=", "seed=", "method."} <= set(names)
    assert not any(name.startswith("_") for name in names)


@pytest.mark.parametrize(("shell", "separator"), [("bash", " "), ("zsh", " "), ("fish", "\n")])
def test_each_shell_has_its_separator(monkeypatch, capsys, shell, separator):
    monkeypatch.setenv("COMP_LINE", "python run.py scale=")
    print_completions(shell, app.COMMANDS, CONF)
    assert capsys.readouterr().out == f"scale=medium{separator}scale=paper{separator}scale=small\n"


def test_the_script_for_bash_calls_this_program():
    """Hydra's function in a real shell."""
    script = """
    eval "$(python run.py -sc install=bash)"
    COMP_LINE="python run.py experiment=digits/"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=2
    hydra_bash_completion
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert process.stdout.split() == [
        "experiment=digits/backdoor",
        "experiment=digits/iscp",
        "experiment=digits/iscp_cascade",
        "experiment=digits/quickstart",
        "experiment=digits/scorecard",
        "experiment=digits/verdict",
    ]


def test_run_py_has_the_words_that_hydras_script_for_fish_searches():
    assert "@hydra.main" in (ROOT / "run.py").read_text()
