"""The work of an inspection fits its time."""

import math

import pytest
from support.configurations import NEEDED, check

from cwx.cli.resolvers import register_resolvers
from cwx.study.inspection_budget import budget


def names(labels):
    """Names that YAML would read as numbers."""
    return [f"{label:05d}" for label in labels]


SETTINGS = {"present": names(range(10)), "classes": 10, "images": 10_000, "side": 32}


@pytest.mark.parametrize("seconds", [1e-4, 1e-3, 1e-2])
def test_more_time_is_never_less_work(seconds):
    canvases, images = 0, 0
    for minutes in (0.5, 2, 10, 60, 600):
        plan = budget(minutes, seconds=seconds, **SETTINGS)
        settings = plan.settings
        assert settings["method.iscp.canvases"] >= canvases
        assert settings["evaluation.predictive_power.images"] >= images
        canvases = settings["method.iscp.canvases"]
        images = settings["evaluation.predictive_power.images"]


@pytest.mark.parametrize("minutes", [1, 5, 20])
@pytest.mark.parametrize("classes", [10, 43])
def test_the_estimate_is_within_the_time(minutes, classes):
    plan = budget(
        minutes, seconds=1e-3, present=names(range(classes)), classes=classes, images=2000, side=32
    )
    assert plan.minutes <= minutes


def test_what_does_not_fit_is_left_out_and_said():
    plan = budget(
        1, seconds=0.1, present=names(range(0, 1000, 2)), classes=1000, images=5000, side=224
    )
    explained = plan.settings["method.iscp.classes"]
    assert 2 <= len(explained) <= 5
    assert {int(name) % 2 for name in explained} == {0}
    assert "activation" not in plan.settings["method"]
    assert plan.settings["data.source.images"] < 5000
    text = "; ".join(plan.left_out)
    assert f"{len(explained)} of 500 classes" in text
    assert "activation maximisation is left out" in text
    assert "the search for triggers and universal perturbations is left out" in text


def test_with_much_time_nothing_is_left_out():
    plan = budget(600, seconds=1e-3, **SETTINGS)
    assert plan.left_out == []
    assert "method.iscp.classes" not in plan.settings
    assert plan.settings["data.source.images"] is None


@pytest.mark.parametrize("images", [10, 50, 300, 10_000])
def test_universal_perturbations_have_enough_steps_also_with_few_images(images):
    for minutes in (3, 10, 600):
        settings = budget(minutes, seconds=1e-3, **SETTINGS | {"images": images}).settings
        total = settings["data.source.images"] or images
        batches = math.ceil(round(settings["method.universal.searched"] * total) / 32)
        assert 44 <= settings["method.universal.passes"] * batches < 44 + batches
        # The others measure the perturbation, and show what it does to images it has not seen.
        assert settings["method.universal.searched"] <= 0.5


@pytest.mark.parametrize("images", [10, 50, 300, 597, 10_000])
@pytest.mark.parametrize("minutes", [0.1, 3, 10, 600])
def test_images_are_left_that_measure_the_patterns(minutes, images):
    """A quick network has time to search all images, and nothing would measure the result."""
    settings = budget(minutes, seconds=1e-5, **SETTINGS | {"images": images}).settings
    assert 0 < settings["method.iscp.searched"] <= 0.5
    total = settings["data.source.images"] or images
    assert settings["method.iscp.searched"] * total >= min(60, total / 2)


def test_a_single_class_has_no_canvases_of_other_classes():
    register_resolvers()
    for present, named in ((names([3]), False), (names([3, 4]), True)):
        settings = budget(600, seconds=1e-3, **SETTINGS | {"present": present}).settings
        assert ("iscp_shuffled" in settings["method"]) == named
        searched = settings["method.iscp.searched"]
        composed = check(
            "experiment=inspect",
            *NEEDED["inspect"],
            f"method=[{','.join(settings['method'])}]",
            f"method.iscp.searched={searched}",
        )
        controls = composed["evaluation"]["pattern_controls"]
        assert controls["shuffled"] == ("iscp_shuffled" if named else None)
        assert controls["redrawn"] == "iscp_redrawn"
        for name in ("iscp_redrawn", *(["iscp_shuffled"] if named else [])):
            assert composed["method"][name]["searched"] == searched


def test_settings_are_of_parts_that_are_chosen():
    for minutes in (0.1, 1, 10, 100):
        settings = budget(minutes, seconds=3e-3, **SETTINGS).settings
        for key in settings:
            kind, _, rest = key.partition(".")
            if kind in ("method", "evaluation") and rest:
                assert rest.partition(".")[0] in settings[kind], key
