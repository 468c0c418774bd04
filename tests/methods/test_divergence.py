"""A training or search that diverges ends in one error with its remedy, and leaves no result."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from support import builders
from support.builders import sgd, small_convnet, stages, train_experts
from support.configurations import FILES, check

from cwx.cli.resolvers import register_resolvers
from cwx.explanations.class_images import DivergedError
from cwx.functional.attacks import Attack, Linf
from cwx.functional.augmentation import Strategy
from cwx.methods.consistency import ConsistencyTrainer
from cwx.methods.expert import Expert
from cwx.networks.convnet import ConvNet
from cwx.storage.recording import Recording
from cwx.storage.trajectories import TrajectoryStore
from cwx.study.contracts import check_method_output
from cwx.study.steps.fine_tuning import FineTune
from cwx.training.stages import Fittable
from cwx.training.subject import Subject

# As the published settings, but short.
SHORT = {
    "iterations": 40, "checkpoint_every": 40, "images_per_class": 1, "canvases": 1, "starts": 1,
    "start_max": 1, "span": 1, "images": 6, "held_out": 6,
}  # fmt: skip
TARGETED = Attack(
    ball=Linf(), epsilon=255, scale=255, step=10, steps=1, random_start=False, targeted=True
)


def searches():
    """A method of each class, by name, and its settings."""
    register_resolvers()
    methods = {}
    for name in FILES["method"]:
        settings = check(f"method=[{name}]", "evaluation=[]")["method"][name]
        methods.setdefault(settings["_target_"], (name, settings))
    return methods.values()


class Overflowing(ConvNet):
    """A network whose logits are infinite."""

    def forward(self, images):
        return super().forward(images) * 1e38 * 1e38


@pytest.fixture(scope="module")
def overflowing(data, tmp_path_factory):
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    return Subject(
        data=data,
        factory=partial(Overflowing, depth=1, width=5, norm=None),
        trajectories=train_experts(data, [0], store, network=small_convnet, epochs=2),
        held_out=[],
        evaluation_networks={},
        epoch=None,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("name", [name for name, _ in searches()])
def test_a_method_refuses_numbers_that_are_not_finite(name, overflowing, tmp_path):
    settings = dict(searches())[name]
    short = {key: value for key, value in SHORT.items() if key in settings}
    build = instantiate({**settings, **short}, _convert_="all")
    with pytest.raises(ValueError, match=rf"method\.{name}\b|the outputs of a network") as refused:
        run(name, build(subject=overflowing, seed=0, stage=name), overflowing, tmp_path)
    assert isinstance(refused.value, DivergedError) or "lower" in str(refused.value)


def run(name, method, subject, folder):
    if isinstance(method, Fittable):
        stages().fit(method, folder / "m.ckpt", [])
    check_method_output(name, method.explanations(), subject.data)


def with_attack(**settings):
    return partial(
        ConsistencyTrainer,
        **{"attack": TARGETED, "alpha": 0.5, "layer": None, "compile": None, **settings},
    )


# Recipes that diverge, with the setting to lower.
RECIPES = {
    "expert": (partial(Expert, attack=None, optimizer=sgd(1e30)), "optimizer.lr"),
    "consistency": (
        with_attack(beta=1e4, optimizer=sgd(0.1)),
        r"beta\. At the first step, its term was \S+ beside a cross-entropy of \S+; at beta=",
    ),
    "adversarial training of pairs": (with_attack(beta=0, optimizer=sgd(1e30)), "optimizer.lr"),
}
COMMON = {
    "epochs": 3, "batch_size": 8, "augment": Strategy({}), "schedule": None,
    "channels_last": False, "recording": Recording(),
}  # fmt: skip


def training(store, recipe):
    settings = {"epochs": COMMON["epochs"]}
    configuration = {
        "network": {}, "recipe": settings, "precision": {"experts": {}},
        "fine_tuning": {"recipe": settings},
    }  # fmt: skip
    return builders.training(store, configuration, recipe=recipe, network=small_convnet, at_once=2)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_refuses_numbers_that_are_not_finite(name, data, overflowing, tmp_path):
    recipe, remedy = RECIPES[name]
    recipe = partial(recipe, **COMMON)
    with pytest.raises(ValueError, match=f"expert-3 .* not finite: lower recipe.{remedy}"):
        training(tmp_path, recipe).experts("expert", seeds=[3, 4], data=data)
    # The message names the setting of the part.
    subject = replace(overflowing, factory=small_convnet)
    with pytest.raises(ValueError, match=f"fine-tuned-0 .* lower fine_tuning.recipe.{remedy}"):
        FineTune(recipe=recipe, seed=0)(subject, training(tmp_path, None))
    assert not list(tmp_path.rglob("complete.json"))


def test_weights_that_the_last_step_spoils_are_not_recorded(data, tmp_path):
    """No loss tells of them."""

    def spoil(module):
        step = module.optimizer_step

        def optimizer_step(*arguments, **settings):
            step(*arguments, **settings)
            if module.trainer.is_last_batch and module.current_epoch == 2:
                next(module.networks[0].parameters()).data.view(-1)[0] = torch.inf

        module.optimizer_step = optimizer_step
        return module

    recipe = partial(Expert, attack=None, optimizer=sgd(0.1), **COMMON)
    with pytest.raises(ValueError, match="the weights of expert-3 are not finite after 3 epochs"):
        training(tmp_path, lambda **given: spoil(recipe(**given))).experts(
            "expert", seeds=[3], data=data
        )
    assert not list(tmp_path.rglob("complete.json"))
    assert not list(tmp_path.rglob("state-0003.safetensors"))


def test_a_long_epoch_stops_soon(data, tmp_path):
    recipe = partial(Expert, attack=None, optimizer=sgd(1e30), **{**COMMON, "batch_size": 1})
    modules = []

    def build(**given):
        modules.append(recipe(**given))
        return modules[-1]

    with pytest.raises(ValueError, match="at step 20, not finite"):
        training(tmp_path, build).experts("expert", seeds=[3], data=data)
    assert modules[0].global_step == 20 < len(data.splits.train)
