"""Experiments, recipes and dataset constructions have the settings of their papers."""

import pytest
from hydra.utils import instantiate
from support.configurations import CONF, EXPERIMENTS, NEEDED, at, check, kind
from support.paper_settings import COMMON, CONSTRUCTIONS, DONG, ISCP, RECIPES, STUDIES

from cwx.cli.config.groups import choices
from cwx.cli.resolvers import register_resolvers


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


@pytest.mark.parametrize("study", STUDIES)
def test_an_experiment_has_the_settings_of_the_paper(study):
    config = check(*f"experiment={study}".split(), *NEEDED.get(study.split()[0], []))
    common = COMMON if "distill" in config["method"] else ISCP if config["method"] else DONG
    for path, expected in {**common, **STUDIES[study]}.items():
        parent, _, key = path.rpartition(".")
        value = (at(config, parent) if parent else config).get(key)
        if path == "evaluation_networks":
            value = {name: kind(network["_target_"]) for name, network in value.items()}
        assert (kind(value) if key == "_target_" else value) == expected, path


def test_the_table_has_every_experiment_of_a_paper():
    others = {"digits/quickstart", "digits/backdoor", "digits/iscp_cascade", "digits/scorecard"}
    others |= {"inspect"}
    # Of another paper, whose settings they change on purpose.
    others |= {"digits/verdict", "cifar10/verdict"}
    assert {study.split()[0] for study in STUDIES} == {*EXPERIMENTS} - others


def test_the_quickstart_has_no_paper_values_and_is_at_scale_paper():
    config = check()
    assert config["paper"] == {}
    assert config == check("scale=paper")
    assert (config["method"]["distill"]["iterations"], config["recipe"]["epochs"]) == (250, 13)


def test_the_backdoor_on_digits_is_the_quickstart_with_a_backdoor():
    before, config = check(), check("experiment=digits/backdoor")
    changed = {key for key in config if config[key] != before[key]}
    assert changed == {"corruption", "purification", "evaluation", "method", "experts"}
    # Early experts, of which there are none, would go as far as the start.
    assert config["experts"]["early"].pop("epochs") == 1
    assert before["experts"]["early"].pop("epochs") == 12
    assert config["experts"] == before["experts"]
    assert (config["corruption"]["target"], config["corruption"]["rate"]) == ("3", 0.1)
    distill = {"span": 1, "start_min": 0, "start_max": 0}
    assert config["method"]["distill"] == before["method"]["distill"] | distill
    assert config["method"]["activation"] == before["method"]["activation"]


def test_adversarial_training_has_the_settings_of_the_paper():
    recipe = check("experiment=cifar10/cwx", "recipe=adversarial")["recipe"]
    assert (recipe["epochs"], recipe["optimizer"]["momentum"]) == (200, 0.9)
    attack = recipe["attack"]
    assert [attack[name] for name in ("epsilon", "step", "scale", "steps")] == [4, 2, 255, 10]
    assert attack["random_start"]
    weaker = check("recipe=adversarial", "attack@recipe.attack=fgs", "recipe.attack.epsilon=1")
    assert weaker["recipe"]["attack"]["step"] == 1
    assert weaker["recipe"]["attack"]["steps"] == 1


@pytest.mark.parametrize("choice", RECIPES)
def test_a_recipe_has_the_settings_of_dong(choice):
    path, expected = RECIPES[choice]
    config = at(check("experiment=cifar10/natural", choice), path)
    values = {name: at(config, name) for name in expected}
    assert {n: kind(v) if n.endswith("_target_") else v for n, v in values.items()} == expected
    if attack := instantiate(config["attack"]):
        # No ball: from black to white is within it.
        assert attack.epsilon == attack.scale == 255


def test_accuracy_under_attack_has_the_settings_of_dong():
    """D11: FGS of 1 and of 5 of 255, top-1 and top-5."""
    accuracy = check("evaluation=[accuracy_dong]")["evaluation"]["accuracy"]
    attacks = accuracy["attacks"]
    assert {n: (a["epsilon"], a["scale"], a["steps"]) for n, a in attacks.items()} == {
        "fgs_1": (1, 255, 1),
        "fgs_5": (5, 255, 1),
        "pgd": (4, 255, 10),
    }
    assert all(attacks[name]["step"] == attacks[name]["epsilon"] for name in ("fgs_1", "fgs_5"))
    assert accuracy["top"] == [1, 5]
    assert check("evaluation=[accuracy_under_attack]")["evaluation"]["accuracy"]["top"] == [1]


@pytest.mark.parametrize("scale", ["paper", "small"])
@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_a_dataset_construction_has_the_settings_of_its_paper(name, scale):
    config = check("experiment=cifar10/natural", f"dataset_construction={name}", f"scale={scale}")
    steps, step, epsilon, source, target = CONSTRUCTIONS[name]
    construction = config["dataset_construction"]
    algorithm, recipe = construction["algorithm"], construction["recipe"]
    moves = algorithm.get("attack", algorithm)
    if scale == "paper":
        assert (moves["steps"], moves["step"], moves.get("epsilon")) == (steps, step, epsilon)
    else:
        # Enough to go through the ball, and for trainings of a minute.
        assert moves["steps"] * moves["step"] > 2 * moves.get("epsilon", 10)
        assert (recipe["epochs"], recipe["batch_size"]) == (12, 64 if name == "robust" else 256)
    assert kind(recipe["attack"]["_target_"]) == source
    assert kind(algorithm.get("target", algorithm)["_target_"]) == target
    if source == "Attack":
        attack = recipe["attack"]
        assert (attack["epsilon"], attack["scale"]) == (0.5, 1)
        assert kind(attack["ball"]["_target_"]) == "L2"
        assert attack["steps"] * attack["step"] > attack["epsilon"]
    # The network that is attacked is one that natural training leaves.
    natural = {**config["recipe"], "recording": recipe["recording"]}
    assert (recipe == natural) == name.startswith("non_robust"), "as the experts are trained"
    instantiate(construction, _convert_="all")


def test_the_ensemble_attack_has_the_settings_of_the_paper():
    """Dong §2.1."""
    adversary = check("adversary=ensemble")["adversary"]
    stated = {"scale": 255, "step": 5, "targets": 10, "images": None, "members": None}
    assert stated.items() <= adversary.items()
    assert 10 <= adversary["steps"] <= 20
    instantiate(adversary, _convert_="all")


def test_every_mask_search_breaks_ties_by_the_mean_mask():
    """A random choice of the pixels at exactly 1 loses most of the power of a pattern.

    A search alone has the settings that it has beside the others: see test_same_search.
    """
    methods = check(f"method=[{','.join(choices('method', [CONF]))}]", "evaluation=[]")["method"]
    searches = {n: m for n, m in methods.items() if kind(m["_target_"]) == "MaskSearch"}
    assert {"iscp", "iscp_tv1"} <= searches.keys()
    for name, search in searches.items():
        assert search["ties"] == "mean", name
