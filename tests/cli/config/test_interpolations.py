"""Interpolations are bounded before they are expanded, and limited in saved settings."""

import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.configurations import CONF

from cwx.cli.config.compose import compose_checked
from cwx.cli.config.interpolations import MAX_SIZE, check_expansion, saved_overrides
from cwx.cli.resolvers import register_resolvers
from cwx.errors import UserError

FILE = Path("run/.hydra/overrides.yaml")


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


def doubling(text, count=40):
    """Settings a0 … of which each has the one before twice."""
    return {"a0": "x", **{f"a{n}": text.replace("?", f"a{n - 1}") for n in range(1, count)}}


EXPANDING = {
    "texts": doubling("${?}${?}"),
    "selected": doubling("${oc.select:?}${oc.select:?,1}"),
    "bracketed": doubling("${[?]}${ ? }"),
    "arguments": doubling("${sum:${?},${?}}"),
    "relative": {"b": doubling("${.?}${.?}")},
    "empty": {**doubling("${?}${?}"), "a0": ""},
    "parts": {
        "a0": {"x": 1},
        **{f"a{n}": {"x": f"${{a{n - 1}}}", "y": f"${{a{n - 1}}}"} for n in range(1, 40)},
    },
    "lists": {"a0": [1], **{f"a{n}": [f"${{a{n - 1}}}"] * 2 for n in range(1, 40)}},
    "behind a reference": {
        "r": "${q}",
        "q": {"a0": "x", **{f"a{n}": f"${{r.a{n - 1}}}${{r.a{n - 1}}}" for n in range(1, 40)}},
    },
    "escaped backslash": doubling(r"\\${?}\\${?}"),
}


@pytest.mark.parametrize("name", EXPANDING)
def test_an_expansion_beyond_bounds_is_refused_at_once(name):
    start = time.monotonic()
    with pytest.raises(UserError, match=f"expands to more than {MAX_SIZE:,} characters") as caught:
        check_expansion(EXPANDING[name])
    assert time.monotonic() - start < 1
    assert "\n" not in str(caught.value)


CIRCLES = {
    "itself": ({"a": "${a}"}, "a refers to itself (a → a)"),
    "two": ({"a": "${b}", "b": "${a}"}, "a refers to itself (a → b → a)"),
    "its parent": ({"a": {"b": "${a}"}}, "a refers to itself (a → a.b → a)"),
    "in a text": ({"a": {"b": "x${.c}"}, "c": 1} | {"a": {"b": "x${.b}"}}, "a.b refers to itself"),
}


@pytest.mark.parametrize("name", CIRCLES)
def test_a_circle_is_refused_with_its_settings(name):
    configuration, message = CIRCLES[name]
    with pytest.raises(UserError) as caught:
        check_expansion(configuration)
    assert message in str(caught.value)


def test_a_long_chain_is_refused():
    chain = {"a0": 1, **{f"a{n}": f"${{a{n - 1}}}" for n in range(1, 2000)}}
    with pytest.raises(UserError, match="references deep"):
        check_expansion({"first": "${a1999}", **chain})


def test_plain_references_pass():
    configuration = {
        "a": {"b": 1, "c": "${.b}", "d": "${e.f}", "g": "${oc.select:nowhere,1}"},
        "e": {"f": "${a.b}", "h": "${oc.env:HOME}", "i": r"\${i}"},
        "k": ["${a}", "${e}"],
    }
    check_expansion(configuration)
    assert OmegaConf.to_container(OmegaConf.create(configuration), resolve=True)


@pytest.mark.parametrize("experiment", ["digits/quickstart", "cifar10/iscp", "imagenet/neurons"])
def test_the_experiments_are_far_below_the_bound(experiment, monkeypatch):
    monkeypatch.setattr("cwx.cli.config.interpolations.MAX_SIZE", MAX_SIZE // 10)
    overrides = [f"experiment={experiment}"]
    compose_checked(CONF, overrides, multirun=False, extra=None, resumed=None)


@pytest.mark.parametrize(
    "overrides",
    [
        ["+b=${c}", "+c=${b}"],
        ["+a0=x", *(f"+a{n}=${{a{n - 1}}}${{a{n - 1}}}" for n in range(1, 40))],
        ["+a=" + "${" * 400 + "b" + "}" * 400],
    ],
)
def test_an_endless_command_line_is_refused_in_one_line(overrides):
    with pytest.raises(UserError) as caught:
        compose_checked(CONF, overrides, multirun=False, extra=None, resumed=None)
    assert "\n" not in str(caught.value)


ALLOWED = [
    "seed=1", "store=${oc.env:SCRATCH}/store", "seed=${oc.decode:${oc.env:SEED,1}}",
    "evaluation.neurons.sigma=${method.a.b}", "a=${sum:${b},1}", "hydra.job.name=${hydra:job.num}",
    r"a='\${b}'",
]  # fmt: skip
FORBIDDEN = {
    "a=${oc.create:{b:1}}": "the resolver oc.create",
    "a=${oc.decode:'${b}${b}'}": "the resolver oc.decode",
    "a=${ oc.select : b}": "the resolver oc.select",
    "a=${oc.deprecated:b}": "the resolver oc.deprecated",
    "a=${shell:ls}": "the resolver shell",
    "a=${sum:1,${user.run:x}}": "the resolver user.run",
    "a=${b.${c}}": "a reference to a computed name",
    "a=${${c}}": "a reference to a computed name",
}


def test_overrides_of_a_saved_run_may_have_plain_references():
    assert saved_overrides(ALLOWED, FILE) == ALLOWED


@pytest.mark.parametrize("line", FORBIDDEN)
def test_other_resolvers_in_the_overrides_of_a_saved_run_are_refused(line):
    with pytest.raises(UserError) as caught:
        saved_overrides(["seed=1", line], FILE)
    message = str(caught.value)
    assert message.startswith(f"{FILE}: {line} has {FORBIDDEN[line]}")
    assert "\n" not in message


@pytest.mark.parametrize("content", [None, 3, "seed=1", {"a": "b"}, ["seed=1", 3], [None], [["a"]]])
def test_overrides_that_are_no_list_of_texts_are_refused(content):
    with pytest.raises(UserError, match=r"overrides\.yaml is damaged: it has no list of settings"):
        saved_overrides(content, FILE)
