"""Checks of a study before any network is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from cwx.data.datamodule import ImageData
from cwx.study.contracts import NETWORK, check_builds, check_explains, check_optimizer
from cwx.training.build import NetworkFactory, check_last_batch, check_outputs, check_size
from cwx.training.experts import Experts
from cwx.training.importing.preprocessing import check_interpolation
from cwx.training.plan import Plan, explained_kinds, output_type, settings_of
from cwx.training.provider import check_recipe
from cwx.training.redrawn import REDRAWN
from cwx.training.stages import Configuration, Factory
from cwx.training.subject import KINDS


def check_study(
    *,
    data: ImageData,
    network: NetworkFactory,
    evaluation_networks: Mapping[str, NetworkFactory],
    experts: Experts,
    recipe: Factory,
    recipe_settings: Configuration,
    method: Mapping[str, Factory],
    parts: Sequence[Any],
    makes_adversarial: bool,
    fine_tunes: bool,
    constructs: bool,
    cures: bool,
) -> Plan:
    """Refuse every setting that would fail only after training.

    Args:
        data: the images, loaded and corrupted.
        network: builds the explained kind of network.
        evaluation_networks: build networks of other architectures, by name.
        recipe: builds the LightningModule that trains networks.
        recipe_settings: the resolved settings of the recipe.
        method: builds the methods, by name.
        parts: the other parts of the study, each of which may have a `check` of its own.
        makes_adversarial: whether the study makes adversarial images.
        fine_tunes: whether the study fine-tunes the experts.
        constructs: whether the study replaces the training images.
        cures: whether the study removes a trigger.

    Returns:
        The plan that the methods and parts have accepted, without imported trajectories.

    Raises:
        ValueError: names the first such setting and the remedy.
    """
    if reserved := sorted(evaluation_networks.keys() & KINDS):
        raise ValueError(
            f"an evaluation network is called {reserved[0]!r}, the name of a kind of experts: "
            "give it another name (network@evaluation_networks.<name>=…)"
        )
    names = [*experts.kinds(), *experts.evaluation_networks(evaluation_networks)]
    networks = {"network": network, **evaluation_networks}
    trained = {name: networks[name] for name in experts.architectures_to_train(evaluation_networks)}
    for name, factory in networks.items():
        setting = name if name == "network" else f"evaluation_networks.{name}"
        check_builds(setting, factory, NETWORK)
        check_size(setting, factory, data)
        trains = name in trained or (name == "network" and fine_tunes)
        check_outputs(name, factory, data, trains=trains)
    check_interpolation(
        data,
        {
            "network": experts.checkpoints,
            **{name: [source] for name, source in experts.evaluation_checkpoints.items()},
        },
        networks,
    )
    plan = Plan(
        data=data,
        methods=list(method),
        held_out=len(experts.held_out) + len(experts.early.held_out),
        held_out_epochs=experts.held_out_epochs(recipe_settings.get("epochs")),
        leaves={name: output_type(build) for name, build in method.items()},
        epochs=experts.epochs(recipe_settings.get("epochs")),
        recorded=recipe_settings.get("recording", {}).get("epochs"),
        networks=networks,
        explains=explained_kinds(method),
        searched=settings_of(method, "searched"),
        names=names,
        adversarial=makes_adversarial,
        constructs=constructs,
        cures=cures,
        kinds=[*names, *(["fine-tuned"] if fine_tunes else [])],
    )
    plan.require_explained([*names, REDRAWN])
    plan.refuse(method, parts)
    # After the parts' own checks, whose messages are more specific.
    for name, build in method.items():
        check_explains(name, build)
        check_optimizer(f"method.{name}", build)
    check_optimizer("recipe", recipe)
    check_recipe(recipe, trained, data)
    for name, factory in trained.items():
        check_last_batch(name, factory, data, recipe_settings.get("batch_size", 0))
    return plan
