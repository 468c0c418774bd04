"""Segments, sizes and trainers that cannot work are refused before any training."""

from functools import partial

import lightning as L
import pytest
from support.builders import Blobs, image_data

from cwx.networks.convnet import ConvNet
from cwx.networks.mlp import MLP
from cwx.training.build import check_outputs, check_size
from cwx.training.plan import Plan
from cwx.training.precision import Precision, Precisions
from cwx.training.stages import Stages


@pytest.fixture(scope="module")
def data():
    data = image_data(Blobs())
    data.setup()
    return data


@pytest.mark.parametrize(
    ("recorded", "segment", "message"),
    [
        (None, {"span": 2, "start_min": 0, "start_max": 8}, None),
        (None, {"span": 2, "start_min": 0, "start_max": 9}, r"segment \[9, 11\] exceeds the 10"),
        (None, {"span": 1, "start_min": 9, "start_max": 3}, "part.start_min is 9, above part.st"),
        (1, {"span": 1, "start_min": 0, "start_max": 3}, "recording.epochs is 1, but part needs"),
        (4, {"span": 1, "start_min": 0, "start_max": 3}, None),
        (3, {"span": 1, "start_min": 0, "start_max": 3}, "raise it to 4, or give null"),
        # The last state is always recorded.
        (3, {"span": 7, "start_min": 3, "start_max": 3}, None),
        (0, {"span": 10, "start_min": 0, "start_max": 0}, None),
    ],
)
def test_segments_that_trajectories_will_not_have_are_refused(data, recorded, segment, message):
    plan = Plan(data=data, methods=[], held_out=0, recorded=recorded)
    if message is None:
        plan.require_segments("part", {"recipe.epochs": 10}, **segment)
        return
    with pytest.raises(ValueError, match=message):
        plan.require_segments("part", {"recipe.epochs": 10}, **segment)


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        ([0, 1, 2, 3], None),
        ([0], "part needs two recorded states of a trajectory, but a has a single state .epoch 0"),
        ([1, 2, 3], "part needs epochs 0-3, but a has epochs 1-3, not 0: choose part.start_min"),
        ([0, 2, 4], "a has epochs 0, 2, 4, not 1, 3"),
    ],
)
def test_segments_that_imported_trajectories_lack_are_refused(data, epochs, message):
    plan = Plan(data=data, methods=[], held_out=0, trajectories={"b": range(9), "a": epochs})
    segment = {"span": 1, "start_min": 0, "start_max": 2}
    if message is None:
        plan.require_segments("part", {}, **segment)
        return
    with pytest.raises(ValueError, match=message):
        plan.require_segments("part", {}, **segment)


def test_images_beyond_the_memory_are_refused_by_their_setting(data):
    plan = Plan(data=data, methods=[], held_out=0)
    plan.require_memory("method.distill.images_per_class", 10, 1000)
    with pytest.raises(ValueError, match="images_per_class is 1000000000 and takes .* GiB"):
        plan.require_memory("method.distill.images_per_class", 10**9, 10**4)


@pytest.mark.parametrize("width", [10**5, 10**6, 10**9])
@pytest.mark.parametrize("build", [partial(ConvNet, depth=2, norm=None), partial(MLP, depth=3)])
def test_networks_beyond_the_memory_are_refused_without_building_them(data, build, width):
    with pytest.raises(ValueError, match=f"network.*width={width}.*(memory|overflowed)"):
        check_size("network", partial(build, width=width), data)


def test_networks_of_usual_size_are_built(data):
    check_size("network", partial(MLP, depth=2, width=64), data)


def test_a_network_whose_outputs_are_not_finite_is_refused(data):
    class Overflow(MLP):
        def forward(self, images):
            return super().forward(images) / 0

    with pytest.raises(ValueError, match="outputs that are not finite"):
        check_outputs("network", partial(Overflow, depth=1, width=4), data, trains=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accelerator": "cpu", "devices": -1}, "accelerator=cpu, trainer.devices=-1"),
        ({"accelerator": "tpu"}, "accelerator=tpu, trainer.devices=1"),
        ({"accelerator": "quantum"}, "accelerator=quantum"),
        ({"strategy": "nope"}, "trainer.strategy=nope"),
        ({"profiler": "x"}, "profiler"),
    ],
)
def test_trainers_that_this_machine_cannot_build_are_refused_by_their_settings(settings, message):
    single = Precision(trainer="32-true", float32_matmul="highest")
    trainer = partial(L.Trainer, **{"devices": 1} | settings)
    with pytest.raises(ValueError, match=message) as caught:
        Stages(trainer, Precisions(experts=single, methods=single))
    assert "correct the settings of trainer" in str(caught.value)
