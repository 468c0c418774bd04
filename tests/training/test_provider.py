"""The identity of a trained network in the store."""

import json
from hashlib import sha256
from types import SimpleNamespace

import pytest
import torch
from support.builders import BlobsWithoutTraining, image_data, small_mlp

from cwx.cli import resolvers
from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.provider import Training, _identity, check_recipe

STORED = {
    "standard": "80d3466c5418",
    "cosine": "ab5cf20b63a6",
    "adversarial": "67f52a344df3",
}


def settings(recipe):
    resolvers.register_resolvers()
    folder, chosen = configuration_folder(), [f"recipe={recipe}"]
    config = compose_checked(folder, chosen, multirun=False, extra=None, resumed=None)
    return config["recipe"]


@pytest.mark.parametrize("recipe", STORED)
def test_the_identity_of_stored_networks_does_not_change(recipe):
    """A change of the identity would train all networks again."""
    identity = json.dumps(_identity(settings(recipe)), sort_keys=True)
    assert sha256(identity.encode()).hexdigest()[:12] == STORED[recipe]


def test_the_consistency_loss_changes_the_identity():
    ordinary, consistent = (_identity(settings(name)) for name in ("plateau", "consistency"))
    assert ordinary["_target_"] != consistent["_target_"]
    assert "alpha" in consistent.keys() - ordinary.keys()


def with_dropout(in_channels, image_size, num_classes):
    return torch.nn.Sequential(small_mlp(
        in_channels=in_channels, image_size=image_size, num_classes=num_classes
    ), torch.nn.Dropout())  # fmt: skip


@pytest.mark.parametrize("network", [small_mlp, with_dropout])
def test_several_processes_have_networks_of_their_own_only_if_they_change_them(network, tmp_path):
    """Dropout draws for the images that a process has."""
    identities = []
    for ranks in (1, 2, 3):

        def train(build, requests, store, *, at_once):
            identities.extend(request.identity for request in requests)
            return []

        training = Training(
            stages=SimpleNamespace(ranks=ranks, train=train),
            network=network,
            store=TrajectoryStore(tmp_path),
            recipe=None,
            configuration={"recipe": {}, "network": {}, "precision": {"experts": {}}},
            at_once=1,
        )
        training.experts("expert", seeds=[0], data=image_data())
    distinct = {json.dumps(identity, sort_keys=True) for identity in identities}
    assert len(distinct) == (3 if network is with_dropout else 1)
    assert "ranks" not in identities[0]


def test_a_recipe_checks_every_kind_of_network():
    data, checked = image_data(BlobsWithoutTraining()), []

    def recipe(*, networks, seeds, stages, **settings):
        assert settings == {"data": data}
        assert len(networks) == len(seeds) == 1
        checked.extend(stages)
        assert all(isinstance(network, torch.nn.Module) for network in networks)
        if stages == ["b"]:
            raise ValueError("not b")

    with pytest.raises(ValueError, match="not b"):
        check_recipe(recipe, dict.fromkeys("abc", small_mlp), data)
    assert checked == ["a", "b"]
