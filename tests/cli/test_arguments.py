"""Words and options that mean nothing are refused in one line with a remedy."""

import pytest

from cwx.cli.arguments import parse_arguments
from cwx.cli.config.home import expand_home
from cwx.errors import UserError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("=5", "=5 names no setting: write key=value"),
        ("+=5", "+=5 names no setting"),
        ("++=", "++= names no setting"),
        ("~", "~ names no setting"),
        ("~=", "~= names no setting"),
        ("seed", "seed is not a setting"),
        ("--config-name x", "--config-name x is not supported: choose experiment=<name>"),
        ("-cn x", "--config-name x is not supported"),
        ("--config-path x", "--config-path x is not supported: add your folder with --config-dir"),
        ("--experimental-rerun x", "--experimental-rerun x is not supported: continue a run"),
        ("--package data", "--package is for --cfg: add --cfg job"),
        ("--resolve", "--resolve is for --cfg"),
        ("--cfg job --info searchpath", "cannot be combined"),
        ("-m --cfg job", "cannot be combined"),
        ("--info nothing", "invalid choice"),
        ("--cfg nothing", "invalid choice"),
        ("--sweep", "there is no --sweep"),
    ],
)
def test_a_word_or_option_without_meaning_is_refused(words, message):
    with pytest.raises(UserError) as caught:
        parse_arguments(words.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words", ["--cfg job --package data --resolve", "-m seed=1,2", "--info searchpath", "~logger"]
)
def test_options_with_a_meaning_are_accepted(words):
    parse_arguments(words.split())


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("store=~/experts", "store=/home/ada/experts"),
        ("store=~", "store=/home/ada"),
        ("hydra.run.dir='~/a run'", "hydra.run.dir='/home/ada/a run'"),
        ("resume=~/runs/one", "resume=/home/ada/runs/one"),
        ("x=[~/a.pt,'~/b.pt']", "x=[/home/ada/a.pt,'/home/ada/b.pt']"),
        ("x={vgg:~/v.pt}", "x={vgg:/home/ada/v.pt}"),
        ("~method.distill", "~method.distill"),
        ("store=a~/b", "store=a~/b"),
        ("store=~other/b", "store=~other/b"),
    ],
)
def test_the_home_directory_in_a_value_is_expanded(word, expanded, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert expand_home([word]) == [expanded]
