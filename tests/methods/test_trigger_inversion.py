"""Trigger inversion of a small subject: it finds small masks, and searches do not interact."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import permutations

import pytest
import torch
from lightning import Trainer
from support.builders import image_data, stages

from cwx.data.search_images import draw_search_images
from cwx.data.splits import ImageSet
from cwx.explanations.patterns import Triggers
from cwx.explanations.serialisation import read_explanations, write_explanations
from cwx.functional.trigger_inversion import masks_and_patterns
from cwx.methods import trigger_inversion as method
from cwx.methods.trigger_inversion import TriggerInversion
from cwx.training.plan import Plan


def inversion(subject, **settings):
    chosen = {
        "seed": 3,
        "stage": "trigger_inversion",
        "explains": "expert",
        "classes": None,
        "images": 12,
        "held_out": 12,
        "restarts": 1,
        "iterations": 60,
        "batch_size": 8,
        "success": 0.9,
        "weight": 1.0,
        "weight_growth": 1.1,
        "noise": 1.0,
        "optimizer": partial(torch.optim.Adam, lr=0.3, betas=(0.5, 0.9)),
        "final_learning_rate": 0.1,
        "measure_every": 5,
        "chunk": None,
        "checkpoint_every": 20,
    }
    return TriggerInversion(subject=subject, **{**chosen, **settings})


def fitted(module, folder):
    stages().fit(module, folder / "m.ckpt", [])
    return module.explanations()


@pytest.fixture(scope="module")
def triggers(subject, tmp_path_factory):
    return fitted(inversion(subject), tmp_path_factory.mktemp("inversion"))


def success(subject, triggers, index, attach):
    test, label = subject.data.splits.test, int(triggers.labels[index])
    images = test.images[test.labels != label].float() / 255
    network = subject.first_network("expert")
    predicted = network(subject.data.normalization.normalize(attach(images))).argmax(1)
    return (predicted == label).double().mean().item()


def test_triggers_send_images_to_their_class_and_cover_a_part_of_the_image(subject, triggers):
    assert triggers.labels.tolist() == [0, 1, 2]
    for index in range(3):
        assert success(subject, triggers, index, triggers.attach(index)) > 0.85
        assert success(subject, triggers, index, lambda images: images) < 0.2
    assert (triggers.sizes < 0.8 * triggers.masks[0].numel()).all()
    assert (triggers.success >= 0.9).all()


def test_the_search_and_the_measurement_use_disjoint_images(subject, triggers):
    split = inversion(subject).split
    assert not (split.searched & split.held_out).any()
    assert torch.equal(split.searched | split.held_out, triggers.searched)


@pytest.mark.parametrize("settings", [{"chunk": 1}, {"chunk": 2}, {"classes": [2]}])
def test_chunks_and_other_classes_do_not_change_a_search(settings, subject, triggers, tmp_path):
    other = fitted(inversion(subject, **settings), tmp_path)
    torch.testing.assert_close(other.masks[-1], triggers.masks[2], rtol=0, atol=1e-4)


def test_a_further_restart_is_never_worse(subject, triggers, tmp_path):
    two = fitted(inversion(subject, restarts=2), tmp_path)
    assert (two.sizes <= triggers.sizes + 1e-3).all()


def test_an_interrupted_search_continues_to_the_same_triggers(subject, triggers, tmp_path):
    class Power(Exception):
        pass

    module = inversion(subject)
    step = module.training_step

    def training_step(batch, batch_idx):
        if module.global_step == 47:
            raise Power
        return step(batch, batch_idx)

    module.training_step = training_step
    with pytest.raises(Power):
        fitted(module, tmp_path)
    again = fitted(inversion(subject), tmp_path)
    assert torch.equal(again.masks, triggers.masks)
    assert torch.equal(again.success, triggers.success)


def test_a_trigger_below_the_required_success_counts_as_larger(triggers):
    strict = replace(triggers, success=torch.tensor([0.0, 1.0, 0.5]), required=torch.tensor(0.6))
    sizes, pixels = triggers.masks.sum((1, 2)), triggers.masks[0].numel()
    expected = torch.stack([torch.tensor(float(pixels)), sizes[1], 1.5 * sizes[2]])
    torch.testing.assert_close(strict.sizes, expected.clamp_max(pixels))


def test_triggers_survive_writing_and_reading(triggers, tmp_path):
    file = tmp_path / "explanations.safetensors"
    write_explanations(file, {"trigger_inversion": triggers})
    (read,) = read_explanations(file).values()
    assert isinstance(read, Triggers)
    for name in ("masks", "patterns", "labels", "success", "searched"):
        assert torch.equal(getattr(read, name), getattr(triggers, name))
    assert read.explains == "expert"


def test_an_overlay_mixes_image_and_pattern(triggers):
    images = torch.rand(2, *triggers.patterns.shape[1:])
    mask, pattern = triggers.masks[1], triggers.patterns[1]
    torch.testing.assert_close(triggers.attach(1)(images), (1 - mask) * images + mask * pattern)


def test_the_best_state_is_one_of_the_search(subject, tmp_path):
    module = inversion(subject)
    fitted(module, tmp_path)
    masks, _ = masks_and_patterns(module.best)
    reached = module.best_rates >= module.success
    assert reached.any()
    torch.testing.assert_close(masks.sum((1, 2))[reached], module.best_sizes[reached])


# Success rates and logits of the mask. All masks but the last are clamped to the whole image, of 16
# pixels; the last one is the largest of all.
CLAMPED = {"a": (0.01, -1.0), "b": (0.02, 1.0), "c": (0.02, 0.0), "d": (0.0, -3.0)}
REACHED = {"e": (0.95, 3.0)}


@pytest.mark.parametrize(("masks", "best"), [(CLAMPED, "c"), (CLAMPED | REACHED, "e")])
def test_the_best_of_clamped_masks_does_not_depend_on_their_order(
    masks, best, subject, monkeypatch
):
    module = inversion(subject, success=0.95, classes=[1])
    module.trainer = Trainer(barebones=True)
    module.on_fit_start()
    start = deepcopy(module.state_dict())
    for order in permutations(masks):
        module.load_state_dict(start)
        for rate, logit in (masks[name] for name in order):
            monkeypatch.setattr(
                method, "success_rates", lambda *_, rate=rate, **__: torch.tensor([rate])
            )
            with torch.no_grad():
                module.logits[:, 0] = logit
                module._keep_best()
        assert module.best_rates.tolist() == pytest.approx([masks[best][0]]), order
        assert (module.best[:, 0] == masks[best][1]).all(), order


@pytest.mark.parametrize("order", list(permutations(CLAMPED)))
def test_the_best_restart_of_clamped_masks_does_not_depend_on_their_order(order, subject):
    module = inversion(subject, restarts=len(order), classes=[1])
    rates, logits = zip(*(CLAMPED[name] for name in order), strict=True)
    module.best[:, 0] = torch.tensor(logits)[:, None, None]
    module.best_rates.copy_(torch.tensor(rates))
    module.best_sizes.fill_(16)
    assert module.explanations().success.tolist() == [pytest.approx(CLAMPED["c"][0])]
    assert module.explanations().masks.tolist() == [[[0.5] * 4] * 4]


@pytest.mark.parametrize(
    ("total", "images", "held_out", "expected"),
    [(100, 20, 30, (20, 30)), (10, 20, 30, (3, 3)), (30, 20, 5, (10, 5)), (3, 9, 9, (1, 1))],
)
def test_a_third_of_the_images_is_never_used(total, images, held_out, expected):
    test = ImageSet(torch.zeros(total, 1, 2, 2, dtype=torch.uint8), torch.arange(total) % 3)
    split = draw_search_images(test, images, held_out, 0, "trigger_inversion")
    assert (int(split.searched.sum()), int(split.held_out.sum())) == expected


def test_a_class_without_images_has_a_trigger_and_a_single_class_is_refused(subject):
    data = image_data()
    data.setup()
    plan = Plan(data=data, methods=["trigger_inversion"], held_out=0)
    settings = {"stage": "trigger_inversion", "classes": None, "images": 12, "held_out": 12}
    TriggerInversion.check(plan, **settings)
    test = data.splits.test
    keep = test.labels == 0
    object.__setattr__(data.splits, "test", test.at(keep))
    TriggerInversion.check(plan, **{**settings, "classes": [1, 2]})
    with pytest.raises(ValueError, match="sends images of other classes to .*there are 0 such"):
        TriggerInversion.check(plan, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"restarts": 0}, "trigger_inversion.restarts is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"images": 0}, "images is 0"),
        ({"held_out": 0}, "held_out is 0"),
        ({"measure_every": 0}, "measure_every is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"classes": ["up"]}, "up"),
        ({"explains": "nothing"}, "no network called 'nothing'"),
    ],
)
def test_impossible_settings_are_refused(settings, message, subject):
    with pytest.raises(ValueError, match=message):
        inversion(subject, **settings)
