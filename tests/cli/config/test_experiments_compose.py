"""Every experiment, sweep and choice composes, passes the check and instantiates."""

import json
import re
from functools import cache

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from support.configurations import (
    CHOICES,
    CONF,
    EXPERIMENTS,
    FILES,
    INDEPENDENT,
    NEEDED,
    REQUIRED,
    ROWS,
    check,
    row_of_choices,
)

from cwx.cli.config.groups import options
from cwx.cli.config.hydra_files import SAVED, check_version
from cwx.cli.config.unchosen import drop_unchosen
from cwx.cli.resolvers import register_resolvers


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


def test_evaluations_of_representations_are_instantiated():
    chosen = "evaluation=[representations,adversarial_detection,traces]"
    for covariance, ridge in (("tied", 1e-6), ("diagonal", 1e-6), ("ledoit_wolf", None)):
        setting = "evaluation.adversarial_detection.covariance"
        config = check(chosen, f"covariance@{setting}={covariance}")["evaluation"]
        assert config["adversarial_detection"]["covariance"].get("ridge") == ridge
        instantiate(config, _convert_="all")
    built = instantiate(check(chosen)["evaluation"], _convert_="all")
    maps = torch.rand(1, 2, 3, 3)
    # Dong et al., §2.3 and §4.
    assert built["representations"].pooling(maps).shape == (1, 18)
    assert built["adversarial_detection"].pooling(maps).shape == (1, 2)
    assert built["adversarial_detection"].covariance.__class__.__name__ == "Tied"
    assert (built["traces"].neurons, built["traces"].sigma, built["traces"].fraction) == (
        2,
        1,
        0.01,
    )


def at_scale(name):
    """Overrides; none for the default, so that one composition is enough for several tests."""
    return [] if name == "paper" else [f"scale={name}"]


@pytest.mark.parametrize("scale", ["paper", "small"])
@pytest.mark.parametrize(
    "sweep",
    [
        "experiment=cifar10/backdoor corruption=badnets,blended,sig,sig_clean_label",
        "experiment=cifar10/dynamics method.distill.start_min=0,2,5,10,20,30",
        "experiment=cifar10/iscp canvas@method.iscp.canvas=positive,negative,random,white",
        "experiment=cifar10/iscp method.iscp.searched=0.2,0.4,0.6,0.8,1 experts.epoch=3,5 "
        "method=[iscp] evaluation=[accuracy,predictive_power]",
        "experiment=cifar10/iscp_backdoor corruption.target=airplane,truck "
        "augment@recipe.augment=shift_flip,none canvas@method.iscp.canvas=white,random",
        "experiment=cifar10/adversarial,cifar10/natural",
        "experiment=cifar10/noise corruption.rate=0,0.25,0.5,0.75",
        "experiment=cifar10/noise corruption=none,label_noise_uniform",
    ],
)
def test_a_sweep_of_a_paper_composes(sweep, scale):
    check(*sweep.split(), *at_scale(scale), multirun=True)


# Experiments with settings of their own at the medium scale.
MEDIUM = sorted(
    str(file.relative_to(CONF / "scale/medium/experiment").with_suffix(""))
    for file in (CONF / "scale/medium/experiment").rglob("*.yaml")
)


@pytest.mark.parametrize(
    ("experiment", "scale"),
    [
        *((name, scale) for name in EXPERIMENTS for scale in ("paper", "small")),
        *((name, "medium") for name in MEDIUM),
    ],
)
def test_every_experiment_composes_and_instantiates(experiment, scale):
    config = check(f"experiment={experiment}", *at_scale(scale), *NEEDED.get(experiment, []))
    study = instantiate(config, _convert_="all")
    assert set(study.method) == set(config["method"])
    assert study.trainer(max_epochs=3, logger=False).max_epochs == 3
    evaluation_networks = config["evaluation_networks"].values()
    if distill := config["method"].get("distill"):
        assert config["recipe"]["epochs"] >= distill["start_max"] + distill["span"]
    else:
        # Nothing else uses experts whose training stops early.
        assert not [*study.experts.early.seeds, *study.experts.early.held_out]
    side = config["data"]["source"].get("size") or 32
    for partial in (config["network"], *(evaluation_networks if scale == "small" else ())):
        classes = 1000 if partial["_target_"].endswith("external") else 10
        assert output_shape(json.dumps(partial), side) == (2, classes)


@cache
def output_shape(settings, side):
    """Of a network with these settings, as JSON; many experiments have the same network."""
    network = instantiate(json.loads(settings))
    network = network(in_channels=3, image_size=(side, side), num_classes=10)
    return network.eval()(torch.rand(2, 3, side, side)).shape


def test_every_group_has_an_entry_in_the_table_of_choices():
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {"hydra"} == {
        *CHOICES,
        "experiment",
    }


# Small already, or whatever somebody else built.
WITHOUT_SMALL_FORM = {
    "mlp",
    "convnet_small",
    "external",
    *(f"imagenet_{name}" for name in ("alexnet", "resnet18", "resnet50", "vgg16")),
}


@pytest.mark.parametrize("name", sorted(options([CONF])["network"] - WITHOUT_SMALL_FORM))
def test_each_network_has_a_small_form(name):
    assert (CONF / "scale/small/network" / f"{name}.yaml").exists()
    check("experiment=cifar10/cwx", "scale=small", f"network={name}")


@pytest.mark.parametrize("scale", ["small", "medium"])
def test_each_file_of_a_scale_belongs_to_an_existing_choice(scale):
    for file in (CONF / "scale" / scale).rglob("*.yaml"):
        path = str(file.relative_to(CONF / "scale" / scale).with_suffix(""))
        group, _, name = path.partition("/")
        assert name in options([CONF])[group]


@pytest.mark.parametrize("name", FILES["paper"])
def test_the_papers_values_belong_to_an_experiment_and_a_network(name):
    experiment, _, network = name.rpartition("/")
    config = check(f"experiment={experiment}", f"network={network}")
    assert config["paper"]


@pytest.mark.parametrize("row", ROWS)
def test_every_choice_of_independent_groups_composes(row):
    """A configuration that no test composes is dead."""
    check(*row_of_choices(row))


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=[{}]".format(",".join(FILES["method"])), "evaluation=[]"],
        # Three files of `evaluation` have settings of `accuracy`, and two of `representations`.
        *(
            [
                "evaluation=[{}]".format(
                    ",".join(n for n in FILES["evaluation"] if n not in left_out)
                )
            ]
            for left_out in (
                {"accuracy", "accuracy_dong", "representations"},
                {"accuracy", "accuracy_under_attack", "representations"},
                {"accuracy_dong", "accuracy_under_attack", "representations_mean"},
            )
        ),
        ["logger=[{}]".format(",".join(FILES["logger"]))],
        *(["experiment=cifar10/cwx", f"scale={name}"] for name in ("paper", "small")),
    ],
    ids=" ".join,
)
def test_every_method_evaluation_logger_and_scale_composes(overrides):
    check(*overrides)


@pytest.mark.parametrize("name", FILES["network"])
def test_every_network_composes(name):
    check(*(line.format(name) for line in CHOICES["network"]), *REQUIRED.get(name, []))


def test_these_tests_compose_every_group():
    listed = {"method", "evaluation", "logger", "scale", "network", "paper"}
    assert {*INDEPENDENT, *listed} == CHOICES.keys()


def test_no_experiment_overrides_a_choice_inside_a_part_of_a_list():
    """It would fail where `evaluation=[…]`, `method=[…]` or `logger=[…]` leaves this part out."""
    inside = re.compile(r"override /\S+@(?:evaluation|method|logger)\.\S+")
    files = [file for group in ("experiment", "scale") for file in (CONF / group).rglob("*.yaml")]
    assert len(files) > 50
    assert not [match[0] for file in files for match in inside.finditer(file.read_text())]


def test_the_schedule_of_a_recipe_is_that_of_its_own_epochs():
    """At whatever place of the configuration the recipe is."""
    study = check(
        "experiment=cifar10/verdict", "cure=unlearn", "recipe@cure.recipe=cosine",
        "cure.recipe.epochs=7",
    )  # fmt: skip
    assert study["cure"]["recipe"]["schedule"]["T_max"] == 7 != study["recipe"]["epochs"]


@pytest.mark.parametrize(
    "experiment",
    [
        "cifar10/iscp",
        "cifar10/iscp_comparison",
        "digits/iscp_cascade",
        "inspect",
        "digits/quickstart",
    ],
)
def test_a_run_can_be_resumed_with_its_saved_configuration(experiment, tmp_path):
    """It is saved with its interpolations, also those of a `_target_`."""
    overrides = [f"experiment={experiment}", *NEEDED.get(experiment, [])]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        saved = compose(config_name="run", overrides=overrides)
    (tmp_path / SAVED).mkdir()
    (tmp_path / SAVED / "config.yaml").write_text(OmegaConf.to_yaml(saved))
    check_version(tmp_path, lambda config: drop_unchosen(config, options([CONF])))
