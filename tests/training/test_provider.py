"""What a trained network is known by."""

import json
from hashlib import sha256

import pytest
import torch
from support.builders import BlobsToTest, image_data, small_mlp

from cwx.cli import resolvers
from cwx.cli import run as entry
from cwx.cli.config.compose import compose_checked
from cwx.training.provider import _identity, check_recipe

STORED = {
    "standard": "80d3466c5418",
    "cosine": "ab5cf20b63a6",
    "adversarial": "67f52a344df3",
}


def settings(recipe):
    resolvers.register_resolvers()
    folder, chosen = entry.configuration_folder(), [f"recipe={recipe}"]
    config = compose_checked(folder, chosen, multirun=False, extra=None, resumed=None)
    return config["recipe"]


@pytest.mark.parametrize("recipe", STORED)
def test_networks_that_are_stored_keep_their_names(recipe):
    """Whoever changes what they are known by has all networks trained anew."""
    identity = json.dumps(_identity(settings(recipe)), sort_keys=True)
    assert sha256(identity.encode()).hexdigest()[:12] == STORED[recipe]


def test_a_consistency_loss_makes_another_network():
    ordinary, consistent = (_identity(settings(name)) for name in ("plateau", "consistency"))
    assert ordinary["_target_"] != consistent["_target_"]
    assert "alpha" in consistent.keys() - ordinary.keys()


def test_a_procedure_is_asked_about_every_kind_of_network():
    data, asked = image_data(BlobsToTest()), []

    def recipe(*, networks, seeds, stages, **given):
        assert given == {"data": data}
        assert len(networks) == len(seeds) == 1
        asked.extend(stages)
        assert all(isinstance(network, torch.nn.Module) for network in networks)
        if stages == ["b"]:
            raise ValueError("not b")

    with pytest.raises(ValueError, match="not b"):
        check_recipe(recipe, dict.fromkeys("abc", small_mlp), data)
    assert asked == ["a", "b"]
