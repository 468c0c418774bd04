"""Scores of the trigger revealed by explanations of known content."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.builders import image_data

from cwx.data.corruption import Backdoor, LabelNoise, NoCorruption
from cwx.data.datamodule import ImageData
from cwx.data.datasets.digits import Digits
from cwx.evaluations.backdoor import overlays
from cwx.evaluations.backdoor.revealed_trigger import RevealedTrigger
from cwx.evaluations.outcome import BASELINES, baselines
from cwx.evaluations.patterns.probe import Probe
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import Patterns, Perturbations, Triggers
from cwx.functional.backdoor import AllToOne, Blend, Face, Patch, Sinusoid
from cwx.functional.label_noise import Uniform
from cwx.functional.rng import stream
from cwx.functional.trigger_scores import (
    PSNR_CEILING,
    estimate_trigger,
    top_pixels,
    trigger_scores,
)
from cwx.training.plan import Plan

TRIGGERS = {
    "patch": Patch(size=2, corner="bottom-left", margin=0, first_pixel="white"),
    "blend": Blend(ratio=0.5, picture=Face()),
    "sinusoid": Sinusoid(delta=60, frequency=1),
}
PATCH_OF_ONE = Patch(size=1, corner="top-left", margin=0, first_pixel="white")
TARGET = 2
LOCATION, APPEARANCE = ["location_error", "iou"], ["correlation", "psnr"]
LOCAL = [*LOCATION, *APPEARANCE, "either_sign_correlation"]
DEFINED = {"patch": LOCAL, "blend": APPEARANCE, "sinusoid": APPEARANCE}


def poisoned(subject, trigger, rate=0.1):
    data = image_data()
    data.corrupt(Backdoor(trigger=trigger, target=TARGET, rate=rate, variant=AllToOne(), seed=0))
    return replace(subject, data=data)


def explanations(data, trigger):
    """The same grey images for every class, with the trigger in the target class alone."""
    grey = torch.randint(
        90, 160, (4, *data.image_shape), generator=torch.Generator().manual_seed(0)
    )
    images = torch.cat([grey.byte()] * TARGET + [trigger.apply(grey.byte())])
    return Explanations(
        data.normalization.from_bytes(images), torch.arange(TARGET + 1).repeat_interleave(4)
    )


@pytest.mark.parametrize("name", TRIGGERS)
def test_explanations_with_the_trigger_reveal_it(subject, name):
    poisoned_subject = poisoned(subject, TRIGGERS[name])
    sources = {"known": explanations(poisoned_subject.data, TRIGGERS[name])}
    outcome = RevealedTrigger(images=None, seconds=False)(poisoned_subject, sources)
    every = ["known", "known-projected", *BASELINES]
    assert list(outcome.metrics) == [
        f"revealed_trigger/{source}/{kind}/{score}"
        for source in every
        for kind in ("target", "others")
        for score in DEFINED[name]
    ]
    assert [(row["source"], row["class"]) for row in outcome.tables["revealed_trigger"]] == [
        (source, kind) for source in every for kind in ("target", "others")
    ]
    assert set(outcome.figures) == {"revealed_trigger", "poisoned_examples"}

    def score_of(score, kind="target"):
        return outcome.metrics[f"revealed_trigger/known/{kind}/{score}"]

    if name == "patch":
        assert score_of("iou") == 1
        assert score_of("location_error") == pytest.approx(0, abs=1e-9)
    assert score_of("correlation") > 0.9 > 0 > score_of("correlation", "others")
    assert PSNR_CEILING >= score_of("psnr") > score_of("psnr", "others")


def test_the_time_of_a_method_is_reported_once_where_it_is_known(subject):
    poisoned_subject = replace(
        poisoned(subject, TRIGGERS["patch"]), method_seconds={"known": 3.5, "unused": 1.0}
    )
    images = explanations(poisoned_subject.data, TRIGGERS["patch"])
    sources = {"known": images, "from_an_older_run": images}
    outcome = RevealedTrigger(images=None, seconds=True)(poisoned_subject, sources)
    times = [name for name in outcome.metrics if name.endswith("/seconds")]
    assert {name: outcome.metrics[name] for name in times} == {
        "revealed_trigger/known/seconds": 3.5
    }
    rows = outcome.tables["revealed_trigger"]
    assert [row["source"] for row in rows if row["seconds"] != ""] == ["known"]
    without = RevealedTrigger(images=None, seconds=False)(poisoned_subject, sources)
    assert not any("seconds" in name for name in without.metrics)


def test_poisoned_images_are_shown_beside_their_originals_and_the_revealed_trigger(subject):
    trigger = TRIGGERS["patch"]
    changed = poisoned(subject, trigger)
    data = changed.data
    sources = {"known": explanations(data, trigger)}
    figure = RevealedTrigger(images=None, seconds=False)(changed, sources).figures[
        "poisoned_examples"
    ]
    texts = [text.get_text().replace("\n", " ") for text in figure.texts]
    assert texts[:6] == [
        "clean original", "poisoned", "known", "true trigger", "revealed by known",
        "revealed by mean",
    ]  # fmt: skip
    names = [name for name in texts[6:] if name]
    assert names
    target = data.classes[TARGET]
    assert all(name.endswith(f"→ {target}") for name in names)
    # As many different original classes as possible.
    assert {name.split()[0] for name in names} >= set(data.classes) - {target}
    shown = [torch.tensor(np.array(axes.images[0].get_array())[..., 0]) for axes in figure.axes]
    mask = trigger.mask(data.image_shape) > 0
    board = (255 * trigger.pattern(data.image_shape)[0]).byte()
    for clean, bad in zip(shown[: len(names)], shown[len(names) : 2 * len(names)], strict=True):
        assert torch.equal(bad, torch.where(mask, board, clean))
        assert not torch.equal(bad, clean)
    *_, true, revealed, _ = shown
    assert torch.equal(true > 127, board > 127)
    assert (revealed[mask] > 127).equal(board[mask] > 127)


def test_a_class_is_compared_with_all_other_classes_on_unit_pixels(subject):
    trigger = TRIGGERS["patch"]
    changed = poisoned(subject, trigger)
    real, shape = changed.real_images(5), changed.data.image_shape
    unit = changed.data.normalization.denormalize(real.images)
    expected = trigger_scores(
        estimate_trigger(unit[real.labels == TARGET], unit[real.labels != TARGET]),
        mask=trigger.mask(shape),
        pattern=trigger.pattern(shape),
    )
    rows = RevealedTrigger(images=None, seconds=False)(changed, {"real-images": real}).tables[
        "revealed_trigger"
    ]
    assert rows[0] == {"source": "real-images", "class": "target", **expected}


def test_the_control_is_the_mean_over_the_other_classes(subject):
    trigger = TRIGGERS["patch"]
    changed = poisoned(subject, trigger)
    source = explanations(changed.data, trigger)
    scores = {}
    for other in (0, 1):
        # The scores of one other class: as if it were the target.
        data = image_data()
        data.corrupt(Backdoor(trigger=trigger, target=other, rate=0.1, variant=AllToOne(), seed=0))
        outcome = RevealedTrigger(images=None, seconds=False)(
            replace(subject, data=data), {"known": source}
        )
        scores[other] = outcome.metrics["revealed_trigger/known/target/psnr"]
    metrics = RevealedTrigger(images=None, seconds=False)(changed, {"known": source}).metrics
    assert metrics["revealed_trigger/known/others/psnr"] == pytest.approx(sum(scores.values()) / 2)


def test_a_source_without_the_target_or_with_one_class_lacks_those_metrics(subject):
    trigger = TRIGGERS["patch"]
    changed = poisoned(subject, trigger)
    whole = explanations(changed.data, trigger)
    parts = {
        name: Explanations(whole.images[chosen], whole.labels[chosen])
        for name, chosen in (
            ("no-target", whole.labels != TARGET),
            ("alone", whole.labels == TARGET),
        )
    }
    outcome = RevealedTrigger(images=None, seconds=False)(changed, parts)
    kinds = [
        (row["source"], row["class"])
        for row in outcome.tables["revealed_trigger"]
        if row["source"] in parts
    ]
    assert kinds == [("no-target", "others")]


@pytest.mark.parametrize(
    "corruption", [NoCorruption(), LabelNoise(kind=Uniform(), rate=0.5, seed=0)]
)
def test_a_study_without_a_backdoor_is_refused(corruption):
    data = image_data()
    data.corrupt(corruption)
    with pytest.raises(ValueError, match="revealed_trigger needs a backdoor.*leave revealed_trig"):
        RevealedTrigger(images=None, seconds=False).check(Plan(data=data, methods=[], held_out=0))


def test_baselines_use_the_corrupted_training_images(subject):
    changed = poisoned(subject, TRIGGERS["patch"], rate=0.5)
    data, train = changed.data, changed.data.splits.train
    by_name = baselines(changed, {"two": subject.real_images(2), "three": subject.real_images(3)})
    assert tuple(by_name) == BASELINES
    assert torch.equal(by_name["real"].images, subject.real_images(3).images)
    assert by_name["train"].labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    trained = data.normalization.from_bytes(train.images)
    for image, label in zip(by_name["train"].images, by_name["train"].labels, strict=True):
        assert (trained[train.labels == label] == image).flatten(1).all(1).any()
    assert by_name["mean"].labels.tolist() == [0, 1, 2]
    for label in range(3):
        expected = trained[train.labels == label].mean(0)
        torch.testing.assert_close(by_name["mean"].images[label], expected)
    assert not torch.equal(
        by_name["train"].images, Explanations(trained, train.labels).first(3).images
    )
    again = baselines(changed, {"three": subject.real_images(3)})
    assert torch.equal(by_name["train"].images, again["train"].images)


def test_baselines_without_methods_have_one_image_per_class(subject):
    assert all(len(explanations.labels) == 3 for explanations in baselines(subject, {}).values())


def test_class_means_of_poisoned_digits_reveal_the_trigger_but_test_images_do_not(subject):
    data = ImageData(source=Digits(), mean=0.5, std=0.5, batch_size=64, per_class=None, total=None)
    data.setup()
    trigger = Patch(size=3, corner="bottom-right", margin=0, first_pixel="white")
    data.corrupt(Backdoor(trigger=trigger, target="5", rate=0.3, variant=AllToOne(), seed=0))
    metrics = RevealedTrigger(images=None, seconds=False)(replace(subject, data=data), {}).metrics
    assert (
        metrics["revealed_trigger/mean/target/iou"]
        > 0.7
        > 0.3
        > metrics["revealed_trigger/real/target/iou"]
    )
    look = {
        source: metrics[f"revealed_trigger/{source}/target/correlation"]
        for source in ("mean", "real")
    }
    assert look["mean"] > 0.8 > 0.3 > look["real"]


def test_patterns_on_the_trigger_reveal_it(subject):
    trigger = TRIGGERS["patch"]
    changed = poisoned(subject, trigger)
    shape = changed.data.image_shape
    masks = torch.rand(6, *shape[1:], generator=stream(0)) / 4
    canvases = torch.rand(6, *shape, generator=stream(1))
    # Each of the target's two canvases has one half of the trigger; no other canvas has any.
    rows, columns = trigger.mask(shape).nonzero().unbind(1)
    masks[4, rows[:2], columns[:2]] = masks[5, rows[2:], columns[2:]] = 1
    canvases[4:] = trigger.pattern(shape)
    patterns = Patterns(
        explains="expert",
        masks=masks,
        canvases=canvases,
        labels=torch.arange(3).repeat_interleave(2),
        searched=torch.zeros(24, dtype=torch.bool),
    )
    outcome = RevealedTrigger(images=None, seconds=False)(changed, {"iscp": patterns})
    metrics = outcome.metrics
    assert metrics["revealed_trigger/iscp/target/iou"] == 1
    assert metrics["revealed_trigger/iscp/target/location_error"] == pytest.approx(0, abs=1e-9)
    assert metrics["revealed_trigger/iscp/target/correlation"] > 0.9
    assert metrics["revealed_trigger/iscp/others/iou"] < 0.5
    kinds = [row["class"] for row in outcome.tables["revealed_trigger"] if row["source"] == "iscp"]
    assert kinds == ["target", "others"]


def test_the_success_of_a_trigger_is_that_of_its_images_with_it(subject):
    """A trigger of all pixels replaces an image: success is all or nothing."""
    data = image_data()
    data.corrupt(Backdoor(trigger=PATCH_OF_ONE, target=1, rate=0.5, variant=AllToOne(), seed=0))
    classes, shape = len(data.classes), data.image_shape
    real = data.splits.test.first(1)
    network = subject.first_network("expert")
    predicted = network(data.normalization.from_bytes(real.images)).argmax(1)
    triggers = Triggers(
        explains="expert",
        masks=torch.ones(classes, *shape[1:]),
        patterns=real.images.float() / 255,
        labels=torch.arange(classes),
        success=torch.ones(classes),
        required=torch.tensor(0.95),
        searched=torch.zeros(len(data.splits.test), dtype=torch.bool),
    )
    outcome = RevealedTrigger(images=20, seconds=False)(
        replace(subject, data=data), {"inversion": triggers}
    )
    right = (predicted == torch.arange(classes)).double()
    assert outcome.metrics["revealed_trigger/inversion/target/success"] == right[1]
    others = right[[0, 2]].mean().item()
    assert outcome.metrics["revealed_trigger/inversion/others/success"] == others
    # Real images and class means have one as well: their pixels replace those of the images.
    assert 0 <= outcome.metrics["revealed_trigger/real/target/success"] <= 1


def backdoored():
    data = image_data()
    data.corrupt(Backdoor(trigger=PATCH_OF_ONE, target=1, rate=0.5, variant=AllToOne(), seed=0))
    return data


def opposite_sources(data, *, left):
    """A trigger and a perturbation, random; each search uses images that the other does not.

    Args:
        left: boolean mask of the test images that neither uses.
    """
    classes, shape = len(data.classes), data.image_shape
    values = torch.rand(classes, *shape, generator=torch.Generator().manual_seed(2))
    even = torch.arange(len(left)) % 2 == 0
    return {
        "inversion": Triggers(
            explains="expert", masks=values[:, 0], patterns=values.flip(0),
            labels=torch.arange(classes), success=torch.ones(classes),
            required=torch.tensor(0.95), searched=even & ~left,
        ),
        "universal": Perturbations(
            explains="expert", deltas=values - 0.5, labels=torch.arange(classes),
            epsilons=torch.full((classes,), 0.5), searched=~even & ~left,
        ),
    }  # fmt: skip


def test_success_is_measured_on_images_that_no_search_used(subject, monkeypatch):
    """All sources on the same images, those of images as well."""
    data = backdoored()
    test, seen = data.splits.test, []
    left = torch.arange(len(test)) % 5 == 0
    sources = opposite_sources(data, left=left)

    class Recorded(Probe):
        def __init__(self, subject, network, images):
            seen.append(images.images[:])
            super().__init__(subject, network, images)

    monkeypatch.setattr(overlays, "Probe", Recorded)
    study = replace(subject, data=data)
    metrics = RevealedTrigger(images=99, seconds=False)(study, sources).metrics
    assert torch.equal(seen[0], test.images[left])
    allowed = {image.tobytes() for image in test.images[left].numpy()}
    assert all(image.tobytes() in allowed for images in seen for image in images.numpy())
    network, others = subject.first_network("expert"), left & (test.labels != 1)
    unit = test.images[others].float() / 255
    for name, output in sources.items():
        attached = output.attach(1)(unit)
        hits = network(data.normalization.normalize(attached)).argmax(1) == 1
        expected = hits.double().mean().item()
        assert metrics[f"revealed_trigger/{name}/target/success"] == pytest.approx(expected)


def test_the_images_of_a_class_take_turns_in_the_success(subject):
    """Each changes the pixels of the highest map in an equal part of the images of each label."""
    data, trigger = image_data(), Patch(size=2, corner="top-left", margin=0, first_pixel="white")
    data.corrupt(Backdoor(trigger=trigger, target=1, rate=0.5, variant=AllToOne(), seed=0))
    shown = data.splits.test.first(3)
    sources = {"known": Explanations(data.normalization.from_bytes(shown.images), shown.labels)}
    study = replace(subject, data=data)
    metrics = RevealedTrigger(images=60, seconds=False)(study, sources).metrics

    test, unit = data.splits.test.spread(60), shown.images.double() / 255
    own = unit[shown.labels == 1]
    estimate = estimate_trigger(own, unit[shown.labels != 1])
    replaced = top_pixels(estimate.map, 4).float()
    network, seen, hits = subject.first_network("expert"), {}, []
    for image, label in zip(test.images.float() / 255, test.labels.tolist(), strict=True):
        turn = seen[label] = seen.get(label, -1) + 1
        if label != 1:
            changed = (1 - replaced) * image + replaced * own[turn % 3].float()
            logits = network(data.normalization.normalize(changed[None]))
            hits.append(logits.argmax().item() == 1)
    expected = sum(hits) / len(hits)
    assert 0 < expected < 1
    assert metrics["revealed_trigger/known/target/success"] == pytest.approx(expected)


def test_without_images_that_no_search_used_there_is_no_success(subject, caplog):
    data = backdoored()
    nothing = torch.zeros(len(data.splits.test), dtype=torch.bool)
    sources = opposite_sources(data, left=nothing)
    study = replace(subject, data=data)
    outcome = RevealedTrigger(images=99, seconds=False)(study, sources)
    assert "success" not in {score for row in outcome.tables["revealed_trigger"] for score in row}
    assert not any(name.endswith("/success") for name in outcome.metrics)
    assert "the searches of inversion, universal used all test images" in caplog.text
    # A class whose images of other classes are all used has none; the mean is over the others.
    labels = data.splits.test.labels
    outcome = RevealedTrigger(images=99, seconds=False)(
        study, opposite_sources(data, left=labels == 1)
    )
    assert "revealed_trigger/inversion/target/success" not in outcome.metrics
    assert 0 <= outcome.metrics["revealed_trigger/inversion/others/success"] <= 1
    rows = outcome.tables["revealed_trigger"]
    assert {row["success"] for row in rows if row["class"] == "target"} == {""}


def test_all_forms_of_output_reveal_a_trigger(subject):
    data = image_data()
    data.corrupt(Backdoor(trigger=PATCH_OF_ONE, target=1, rate=0.5, variant=AllToOne(), seed=0))
    classes, shape = len(data.classes), data.image_shape
    searched = torch.zeros(len(data.splits.test), dtype=torch.bool)
    pixels = torch.rand(classes, *shape, generator=torch.Generator().manual_seed(0))
    patterns = Patterns(
        explains="expert", masks=pixels[:, 0], canvases=pixels, labels=torch.arange(classes),
        searched=searched,
    )  # fmt: skip
    deltas = torch.cat([pixels - 0.5, torch.zeros_like(pixels)])
    perturbations = Perturbations(
        explains="expert", deltas=deltas, labels=torch.arange(classes).repeat(2),
        epsilons=torch.tensor([0.5, 0.1]).repeat_interleave(classes), searched=searched,
    )  # fmt: skip
    sources = {"iscp": patterns, "universal": perturbations}
    metrics = RevealedTrigger(images=20, seconds=False)(
        replace(subject, data=data), sources
    ).metrics
    for source in sources:
        for score in ("iou", "location_error", "success"):
            assert f"revealed_trigger/{source}/target/{score}" in metrics
    # The largest radius counts: the smaller one does nothing.
    (largest,) = ((pixels[1] - 0.5).abs().mean(0).flatten().argsort(descending=True)[:1]).tolist()
    hit = float(PATCH_OF_ONE.mask(shape).flatten()[largest])
    assert metrics["revealed_trigger/universal/target/iou"] == hit


def test_sources_without_a_success_have_an_empty_cell(subject):
    """Images have no success for a trigger of the whole image; the table has it for all sources."""
    data = image_data()
    trigger = Blend(ratio=0.5, picture=Face())
    data.corrupt(Backdoor(trigger=trigger, target=1, rate=0.5, variant=AllToOne(), seed=0))
    classes, shape = len(data.classes), data.image_shape
    perturbations = Perturbations(
        explains="expert", deltas=torch.zeros(classes, *shape), labels=torch.arange(classes),
        epsilons=torch.full((classes,), 0.1),
        searched=torch.zeros(len(data.splits.test), dtype=torch.bool),
    )  # fmt: skip
    changed = replace(subject, data=data)
    outcome = RevealedTrigger(images=20, seconds=False)(changed, {"universal": perturbations})
    rows = outcome.tables["revealed_trigger"]
    assert len({tuple(row) for row in rows}) == 1
    empty = {row["source"] for row in rows if row["success"] == ""}
    assert empty == {"real", "train", "mean"}
