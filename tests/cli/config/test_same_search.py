"""Searches that are compared with method=[iscp] have its settings, but for what they vary."""

import re

import pytest
from support.configurations import CONF, check

from cwx.cli.config.followed_settings import check_followed
from cwx.cli.resolvers import register_resolvers
from cwx.errors import UserError

# What each of them varies.
VARIED = {
    "iscp_cascade_1": {"explains", "canvas_network"},
    "iscp_cascade_2": {"explains", "canvas_network"},
    "iscp_cascade_3": {"explains", "canvas_network"},
    "iscp_clean": {"explains"},
    "iscp_learned_canvas": {"learned_canvas"},
    # Canvases that a network without training recognises do not exist: they are random.
    "iscp_redrawn": {"explains", "canvas"},
    "iscp_shuffled": {"canvas_classes"},
    "iscp_tv02": {"beta"},
    "iscp_tv1": {"beta"},
}
# Other values than the defaults, of every setting of the search.
CHANGED = {
    "classes": "[cat]",
    "canvas._target_": "cwx.functional.canvas_sampling.negative",
    "canvas_network": "held-out",
    "canvases": "7",
    "searched": "0.3",
    "passes": "9",
    "batch_size": "3",
    "initial": "0.4",
    "alpha": "0.1",
    "alpha_size": "0.07",
    "beta": "0.6",
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.lr": "0.7",
    "ties": "drawn",
    "channels_last": "true",
    "chunk": "4",
}


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


def methods(*overrides):
    names = ",".join(VARIED)
    return check(
        "experiment=cifar10/iscp", f"method=[iscp,{names}]", "experts.clean=[0]", *overrides
    )["method"]


def test_every_search_but_iscp_is_known():
    files = {file.stem for file in (CONF / "method").glob("iscp_*.yaml")}
    assert files == set(VARIED)


@pytest.mark.parametrize(
    "overrides", [(), tuple(f"++method.iscp.{k}={v}" for k, v in CHANGED.items())]
)
def test_they_follow_the_search(overrides):
    composed = methods(*overrides)
    iscp = composed["iscp"]
    assert {key.partition(".")[0] for key in CHANGED} == set(iscp) - {
        "_target_",
        "_partial_",
        *set.union(*VARIED.values()),
    } | {"beta", "canvas", "canvas_network"}
    for name, varied in VARIED.items():
        assert {k for k, v in composed[name].items() if v != iscp[k]} <= varied


def test_an_added_argument_is_asked_of_all_searches():
    """They cannot follow what they do not know: without it the comparison would be another."""
    changes = [
        "method.iscp.optimizer._target_=torch.optim.SGD",
        "+method.iscp.optimizer.momentum=0.9",
    ]
    remedy = r"add \+method\.(\w+)\.optimizer\.momentum=0\.9, or leave"
    for _ in VARIED:
        with pytest.raises(UserError, match=remedy) as caught:
            methods(*changes)
        name = re.search(remedy, str(caught.value))[1]
        changes.append(f"+method.{name}.optimizer.momentum=0.9")
    assert {method["optimizer"]["momentum"] for method in methods(*changes).values()} == {0.9}


def test_another_canvas_needs_no_arguments_of_the_first():
    search, own = "cwx.methods.iscp.MaskSearch", {"_target_": "mine.brightest", "power": 2}
    iscp = {"_target_": search, "canvas": own}
    check_followed({"iscp": iscp, "a": {"_target_": search, "canvas": {"_target_": "mine.other"}}})
    check_followed({"iscp": iscp, "b": {"_target_": "mine.Other", "canvas": {}}})
    with pytest.raises(UserError, match=r"canvas has power, and method\.c, which"):
        check_followed({"iscp": iscp, "c": iscp | {"canvas": {"_target_": "mine.brightest"}}})


def test_without_it_they_have_its_defaults():
    composed = methods()
    for name, varied in VARIED.items():
        overrides = (f"method=[{name}]", "evaluation=[predictive_power]", "experts.clean=[0]")
        alone = check("experiment=cifar10/iscp", *overrides)["method"][name]
        assert {k for k, v in alone.items() if v != composed["iscp"][k]} <= varied
