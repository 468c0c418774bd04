"""What the tab key offers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.run_folders import make_run

from cwx.cli import app
from cwx.cli.completion import answer, complete
from cwx.cli.config.compose import options
from cwx.cli.run import register_resolvers

CONF = ROOT / "conf"


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


def offered(line):
    return complete(line, app.COMMANDS, CONF)


@pytest.mark.parametrize("scale", ["", "scale=small "])
def test_every_experiment_is_offered(scale):
    experiments = sorted(options([CONF])["experiment"])
    assert offered(f"{scale}experiment=") == [f"experiment={name}" for name in experiments]
    assert offered("experiment=digits/q") == ["experiment=digits/quickstart"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("exp", {"experiment=", "experiments", "experts", "experts.", "experts="}),
        ("sc", {"scale="}),
        ("scale=", {"scale=paper", "scale=small"}),
        ("-m corruption=badnets,bl",
         {"corruption=badnets,blended", "corruption=badnets,blended_picture"}),
        ("method=[iscp,le", {"method=[iscp,iscp_learned_canvas"}),
        ("augment@recipe.augment=s", {"augment@recipe.augment=shift_flip"}),
        ("+network@evaluation_networks.a=vgg", {"+network@evaluation_networks.a=vgg11", "+network@evaluation_networks.a=vgg16"}),
        ("network=mlp network.wi", {"network.width="}),
        ("method.distill.iterat", {"method.distill.iterations="}),
        ("l", {"ls", "logger=", "logger."}),
        ("seed=1 l", {"logger=", "logger."}),
        ("seed=1 re", {"fine_tuning=", "fine_tuning."}),
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
def test_a_line_goes_on(tmp_path, monkeypatch, line, found):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", ".c"):
        make_run(tmp_path / "runs" / name)
    (tmp_path / "runs" / "file").touch()
    assert offered(line) == sorted(found)


def test_nothing_typed_offers_commands_and_settings():
    found = offered("")
    assert {*app.COMMANDS, "experiment=", "seed=", "method."} <= set(found)
    assert not any(name.startswith("_") for name in found)


@pytest.mark.parametrize(("shell", "between"), [("bash", " "), ("zsh", " "), ("fish", "\n")])
def test_each_shell_is_answered_in_its_way(monkeypatch, capsys, shell, between):
    monkeypatch.setenv("COMP_LINE", "python run.py scale=")
    answer(shell, app.COMMANDS, CONF)
    assert capsys.readouterr().out == f"scale=paper{between}scale=small\n"


def test_the_script_for_bash_asks_this_program():
    """Hydra's function in a real shell, which finds the program by the words on the line."""
    script = """
    eval "$(python run.py -sc install=bash)"
    COMP_LINE="python run.py experiment=digits/"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=2
    hydra_bash_completion
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [
        "experiment=digits/backdoor",
        "experiment=digits/iscp",
        "experiment=digits/quickstart",
    ]


def test_fish_finds_the_words_that_it_looks_for():
    assert "@hydra.main" in (ROOT / "run.py").read_text()
