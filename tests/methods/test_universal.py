"""Universal perturbations of a small subject, and what they owe to each other: nothing."""

from dataclasses import replace

import pytest
import torch
from support.builders import image_data, stages

from cwx.evaluations.patterns.predictive_power import PredictivePower
from cwx.explanations.patterns import Perturbations
from cwx.methods.universal import UniversalPerturbation
from cwx.study.results import Results
from cwx.training.plan import Plan


def universal(subject, **settings):
    chosen = {
        "seed": 3,
        "stage": "universal",
        "explains": "expert",
        "classes": None,
        "searched": 1.0,
        "epsilons": [32, 64, 128],
        "step": 8,
        "scale": 255,
        "passes": 6,
        "batch_size": 5,
        "chunk": None,
    }
    return UniversalPerturbation(subject=subject, **{**chosen, **settings})


def fitted(module, folder, **settings):
    stages(**settings).fit(module, folder / "m.ckpt", [])
    return module.explanations()


def success(subject, found, index):
    """The rate of other classes' test images that go to the class; last without anything."""
    test, label = subject.data.splits.test, int(found.labels[index])
    images = test.images[test.labels != label].float() / 255
    network, normalize = subject.first_network("expert"), subject.data.normalization.normalize
    return [
        (network(normalize(unit)).argmax(1) == label).double().mean().item()
        for unit in (found.attach(index)(images), images)
    ]


@pytest.fixture(scope="module")
def found(subject, tmp_path_factory):
    return fitted(universal(subject), tmp_path_factory.mktemp("universal"))


def test_there_is_one_for_each_class_and_radius(subject, found):
    assert found.deltas.shape == (9, *subject.data.image_shape)
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    torch.testing.assert_close(found.epsilons, torch.tensor([32, 64, 128] * 3) / 255)
    assert found.explains == "expert"
    assert found.searched.all()


def test_none_leaves_its_ball_and_each_reaches_its_edge(found):
    assert torch.equal(found.deltas.abs().amax((1, 2, 3)), found.epsilons)


def test_carrying_images_stay_in_range(subject, found):
    carrying = found.attach(2)(subject.data.splits.test.images.float() / 255)
    assert carrying.min() >= 0
    assert carrying.max() <= 1


def test_success_rises_with_the_radius_above_the_clean_rate(subject, found):
    for label in range(3):
        rates = [success(subject, found, 3 * label + i)[0] for i in range(3)]
        assert rates == sorted(rates)
        assert rates[-1] > 0.9 > 0.1 >= success(subject, found, 3 * label)[1]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_chunks_do_not_change_what_is_found(chunk, subject, found, tmp_path):
    again = fitted(universal(subject, chunk=chunk), tmp_path)
    torch.testing.assert_close(again.deltas, found.deltas, rtol=0, atol=1e-6)


def test_none_depends_on_the_others(subject, found, tmp_path):
    alone = fitted(universal(subject, classes=["right"], epsilons=[64]), tmp_path)
    assert alone.labels.tolist() == [2]
    torch.testing.assert_close(alone.deltas[0], found.deltas[7], rtol=0, atol=1e-6)


def test_a_cut_run_continues_to_the_same_perturbations(subject, found, tmp_path):
    class Power(Exception):
        pass

    module = universal(subject)
    step = module.training_step

    def training_step(batch, batch_idx):
        if module.global_step == 11:
            raise Power
        return step(batch, batch_idx)

    module.training_step = training_step
    with pytest.raises(Power):
        fitted(module, tmp_path)
    assert torch.equal(fitted(universal(subject), tmp_path).deltas, found.deltas)


def test_a_seed_gives_one_result(subject, tmp_path):
    first, same, other = (
        fitted(universal(subject, seed=seed, searched=0.5, passes=2), tmp_path / str(i))
        for i, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(first.deltas, same.deltas)
    assert not torch.equal(first.deltas, other.deltas)
    assert not torch.equal(first.searched, other.searched)
    assert first.searched.sum() == 12


def test_the_scale_is_a_unit(subject, found, tmp_path):
    unit = universal(subject, epsilons=[e / 255 for e in (32, 64, 128)], step=8 / 255, scale=1)
    torch.testing.assert_close(fitted(unit, tmp_path).deltas, found.deltas, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilons": []}, r"universal.epsilons is \[\] on a scale of 0 to 255"),
        ({"epsilons": [8, 300]}, r"epsilons is \[8, 300\].*scale=255 for grey levels"),
        ({"epsilons": [8], "scale": 1}, "on a scale of 0 to 1: give sizes above 0 on that scale"),
        ({"epsilons": [8, 8]}, r"epsilons is \[8, 8\]: give each radius once"),
        ({"step": 0}, "universal.step is 0 on a scale"),
        ({"passes": 0}, "universal.passes is 0: give 1 or more"),
        ({"batch_size": 0}, "universal.batch_size is 0"),
        ({"chunk": 0}, "universal.chunk is 0"),
        ({"searched": 0.0}, "universal.searched is 0.0"),
        ({"classes": ["up"]}, "up"),
        ({"explains": "nothing"}, "no network called 'nothing'"),
    ],
)
def test_impossible_settings_are_refused(settings, message, subject):
    with pytest.raises(ValueError, match=message):
        universal(subject, **settings)


RADII = {"stage": "universal", "searched": 1.0, "epsilons": [8], "step": 1, "scale": 255}


def data_with(labels):
    """The test set holds the images of these classes only."""
    data = image_data()
    test = data.splits.test
    chosen = torch.isin(test.labels, torch.tensor(labels))
    object.__setattr__(data.splits, "test", test.at(chosen))
    return data


def test_a_class_without_test_images_has_a_perturbation_and_a_power(subject, tmp_path):
    without = replace(subject, data=data_with([0, 2]))
    UniversalPerturbation.check(
        Plan(data=without.data, methods=["universal"], held_out=0), classes=None, **RADII
    )
    output = fitted(universal(without, epsilons=[128]), tmp_path / "all")
    assert output.labels.tolist() == [0, 1, 2]
    assert success(without, output, 1)[0] > 0.9
    alone = fitted(universal(without, epsilons=[128], classes=["middle"]), tmp_path / "alone")
    torch.testing.assert_close(alone.deltas[0], output.deltas[1], rtol=0, atol=1e-6)
    metrics = PredictivePower(sizes=[0.1], gammas=[], images=None, canvas_choice="lowest_loss")(
        without, {"universal": output}
    ).metrics
    power = metrics["predictive_power/whole/universal/128/class/middle"]
    assert power == pytest.approx(success(without, output, 1)[0])


def test_a_class_without_images_of_other_classes_is_refused_before_anything_is_trained(subject):
    plan = Plan(data=data_with([1]), methods=["universal"], held_out=0)
    message = r"sends images of other classes to 'middle' \(index 1\), and there are none among"
    with pytest.raises(ValueError, match=message):
        UniversalPerturbation.check(plan, classes=None, **RADII)
    with pytest.raises(ValueError, match=message):
        universal(replace(subject, data=plan.data))
    UniversalPerturbation.check(plan, classes=["left", "right"], **RADII)


def test_radii_and_the_fraction_are_refused_before_anything_is_trained():
    plan = Plan(data=image_data(), methods=["universal"], held_out=0)
    for changes in ({"searched": 1e-6}, {"epsilons": [300]}, {"step": 300}):
        with pytest.raises(ValueError, match=f"method.universal.{next(iter(changes))} is"):
            UniversalPerturbation.check(plan, classes=["left"], **RADII | changes)


def test_perturbations_come_back_from_their_file(found, tmp_path):
    Results(tmp_path).add_explanations("universal", found)
    again = Results(tmp_path).explanations()["universal"]
    assert isinstance(again, Perturbations)
    assert torch.equal(again.deltas, found.deltas)
    assert torch.equal(again.epsilons, found.epsilons)
