"""scale=small reduces the work of an experiment, and nothing else."""

import pytest
from support.configurations import CONF, at, check
from support.paper_settings import RECIPES, SMALL

from cwx.cli.config.scales import unscaled_networks
from cwx.cli.resolvers import register_resolvers


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


@pytest.mark.parametrize("study", SMALL)
def test_the_small_scale_reduces_the_work_alone(study):
    config = check(*f"experiment={study} scale=small".split())
    network, epochs, start, per_class, steps, early, inner = SMALL[study]
    distill = config["method"]["distill"]
    assert config["data"]["total"] == 5000
    assert network.items() <= config["network"].items()
    assert config["recipe"]["epochs"] == epochs
    assert (distill["start_min"], distill["start_max"]) == start
    assert (distill["images_per_class"], distill["iterations"]) == (per_class, steps)
    assert (distill["inner"]["steps"], distill["inner"]["learning_rate"]) == inner
    assert (distill["learning_rate_lr"] is None) == (inner[1] is not None)
    assert distill["largest_set"] == 100
    assert distill["inner"]["augment"]["operations"] == config["recipe"]["augment"]["operations"]
    assert config["experts"]["early"]["epochs"] == early
    assert distill["unroll"]["compile"] is None
    # What makes a study itself is left alone.
    paper = check(*f"experiment={study}".split())
    for part in ("corruption", "purification", "paper", "seed"):
        assert config[part] == paper[part]
    assert config["evaluation_networks"].keys() == paper["evaluation_networks"].keys()
    assert distill["span"] == paper["method"]["distill"]["span"]
    attack, full = config["recipe"]["attack"], paper["recipe"]["attack"]
    assert {**attack, "steps": 0} == {**full, "steps": 0}
    assert config["experts"]["held_out"] == paper["experts"]["held_out"]


def test_the_small_comparison_reduces_all_methods_alike():
    """Only the amount of work differs, and by the same for all mask searches."""
    small, paper = (
        check("experiment=cifar10/iscp_comparison", f"scale={scale}")["method"]
        for scale in ("small", "paper")
    )
    work = {"canvases", "searched", "passes", "batch_size", "step", "channels_last"}
    assert list(small) == list(paper)
    for name, method in small.items():
        assert {k for k, v in method.items() if v != paper[name][k]} <= work
    searches = [small[name] for name in ("iscp", "iscp_tv02", "iscp_tv1", "iscp_learned_canvas")]
    assert len({(s["canvases"], s["searched"], s["passes"]) for s in searches}) == 1


def test_settings_on_the_command_line_override_the_scale():
    config = check("experiment=cifar10/cwx", "scale=small", "network.width=8", "recipe.epochs=20")
    assert (config["network"]["width"], config["recipe"]["epochs"]) == (8, 20)


def test_the_small_consistency_attack_moves_images_as_far():
    for choice in ("recipe=consistency", "fine_tuning=consistency"):
        path = RECIPES[choice][0]
        small, paper = (
            at(check("experiment=cifar10/natural", choice, f"scale={scale}"), f"{path}.attack")
            for scale in ("small", "paper")
        )
        assert small["steps"] * small["step"] == paper["steps"] * paper["step"]
        assert small["steps"] < paper["steps"]


def test_networks_without_a_small_form_are_named():
    choices = {
        "scale": "small",
        "network": "mlp",
        "network@evaluation_networks.resnet50": "resnet50",
        "scale/small/network@evaluation_networks.resnet50": "resnet50",
        "network@evaluation_networks.other": "vgg11",
        "network@evaluation_networks.theirs": "external",
    }
    assert unscaled_networks(choices, [CONF]) == [
        "network=mlp has no form at scale=small and keeps its full size",
        "network@evaluation_networks.other=vgg11 keeps its full size at scale=small; to reduce it, "
        "add +scale/small/network@evaluation_networks.other=vgg11",
        "network@evaluation_networks.theirs=external has no form at scale=small and keeps its "
        "full size",
    ]
    assert unscaled_networks({**choices, "scale": "paper"}, [CONF]) == []


def test_the_remedy_for_an_evaluation_network_reduces_it():
    network = "network@evaluation_networks.other=vgg11"
    command = ["experiment=cifar10/cwx", "scale=small", f"+{network}"]
    full = check(*command)["evaluation_networks"]["other"]
    small = check(*command, f"+scale/small/{network}")["evaluation_networks"]["other"]
    assert (full["blocks"][0], small["blocks"][0]) == ([64], [8])


MEDIUM = (
    "cifar10/cwx",
    "cifar10/noise",
    "cifar10/backdoor",
    "cifar10/adversarial",
    "cifar10/natural",
)


@pytest.mark.parametrize("study", MEDIUM)
def test_the_medium_scale_uses_all_images_and_what_makes_a_study_itself(study):
    config, paper = (check(f"experiment={study}", f"scale={s}") for s in ("medium", "paper"))
    for part in ("data", "corruption", "purification", "paper", "seed", "augment"):
        assert config.get(part) == paper.get(part)
    assert config["network"] == {**paper["network"], "width": 64}
    recipe, full = config["recipe"], paper["recipe"]
    assert recipe["optimizer"] == full["optimizer"]
    assert recipe["batch_size"] == full["batch_size"]
    assert recipe["augment"] == full["augment"]
    assert config["experts"]["early"]["epochs"] <= recipe["schedule"]["milestones"][0]
    distill = config["method"]["distill"]
    assert distill["inner"]["augment"]["operations"] == recipe["augment"]["operations"]
