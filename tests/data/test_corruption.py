"""Corruption of a set of images: a row a kind, and the laws that each obeys."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.builders import image_data

from cwx.data.corruption import Backdoor, LabelNoise, NoCorruption, PictureFile
from cwx.data.splits import ImageSet
from cwx.functional.backdoor import (
    AllToOne,
    Blend,
    CleanLabel,
    Face,
    Patch,
    Sinusoid,
)
from cwx.functional.label_noise import Asymmetric, Permuted, Uniform
from cwx.functional.rng import stream

NAMES = ("cat", "dog", "frog", "horse")
COUNT = 40
PATCH = Patch(size=2, corner="bottom-right", margin=0)


def image_set(count=COUNT):
    """Images without a trigger in any of them, of four classes in equal parts."""
    images = torch.randint(50, 200, (count, 3, 6, 6), generator=stream(0), dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % len(NAMES))


def backdoor(*, trigger=PATCH, rate=0.1, variant=None, target=1, seed=0):
    return Backdoor(
        trigger=trigger, target=target, rate=rate, variant=variant or AllToOne(), seed=seed
    )


BACKDOORS = {
    "patch": lambda rate, seed: backdoor(rate=rate, seed=seed),
    "blend": lambda rate, seed: backdoor(
        trigger=Blend(ratio=0.2, picture=Face()), rate=rate, seed=seed
    ),
    "sinusoid": lambda rate, seed: backdoor(
        trigger=Sinusoid(delta=20, frequency=2), rate=rate, seed=seed
    ),
    # A fourth of the images is of the target class.
    "clean label": lambda rate, seed: backdoor(rate=rate / 4, variant=CleanLabel(), seed=seed),
}
NOISE = {
    "permuted": lambda rate, seed: LabelNoise(kind=Permuted(), rate=rate, seed=seed),
    "uniform": lambda rate, seed: LabelNoise(kind=Uniform(), rate=rate, seed=seed),
    "asymmetric": lambda rate, seed: LabelNoise(kind=Asymmetric(to=None), rate=rate, seed=seed),
}
KINDS = {**BACKDOORS, **NOISE}

each_kind = pytest.mark.parametrize("build", KINDS.values(), ids=list(KINDS))
# In tenths: of 40 images, and of the 10 of a class, a whole number.
rates = st.integers(0, 10).map(lambda tenths: tenths / 10)


def same(one, other):
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


@pytest.mark.parametrize(
    "corruption",
    [NoCorruption(), *(build(0, 3) for build in KINDS.values())],
    ids=["none", *KINDS],
)
def test_a_rate_of_0_changes_nothing(corruption):
    images = image_set()
    found = corruption(images, NAMES)
    assert same(found.images, images)
    assert not found.is_corrupted.any()
    assert found.effective_rate == 0


@each_kind
@given(rates, st.integers(0, 9))
def test_the_same_seed_touches_the_same_images(build, rate, seed):
    first, second = (build(rate, seed)(image_set(), NAMES) for _ in range(2))
    assert torch.equal(first.is_corrupted, second.is_corrupted)
    assert same(first.images, second.images)


@each_kind
def test_another_seed_touches_others(build):
    first, second = (build(0.5, seed)(image_set(), NAMES) for seed in (0, 1))
    assert not torch.equal(first.is_corrupted, second.is_corrupted)


@each_kind
@given(rates, st.integers(0, 9))
def test_touched_images_and_only_they_differ(build, rate, seed):
    clean = image_set()
    found = build(rate, seed)(clean, NAMES)
    pixels = (found.images.images != clean.images).flatten(1).any(1)
    labels = found.images.labels != clean.labels
    assert found.is_corrupted.dtype == torch.bool
    assert torch.equal(found.is_corrupted, pixels | labels)
    assert found.effective_rate == pytest.approx(int(found.is_corrupted.sum()) / COUNT)
    assert same(clean, image_set())


@given(rates, st.integers(0, 9))
def test_all_to_one_poisons_its_share_of_all_images(rate, seed):
    clean = image_set()
    found = backdoor(rate=rate, seed=seed)(clean, NAMES)
    assert found.effective_rate == pytest.approx(rate)
    assert (found.images.labels[found.is_corrupted] == 1).all()
    assert torch.equal(
        found.images.images[found.is_corrupted], PATCH.apply(clean.images[found.is_corrupted])
    )
    if rate == 1:
        assert (clean.labels[found.is_corrupted] == 1).any()


@given(rates, st.integers(0, 9))
def test_clean_labels_stay_and_the_target_class_alone_is_poisoned(rate, seed):
    clean = image_set()
    found = backdoor(rate=rate / 4, variant=CleanLabel(), seed=seed)(clean, NAMES)
    assert torch.equal(found.images.labels, clean.labels)
    assert (clean.labels[found.is_corrupted] == 1).all()
    assert found.effective_rate == pytest.approx(rate / 4)


@pytest.mark.parametrize("target", ["frog", 2])
def test_the_backdoor_is_kept_with_its_target(target):
    found = backdoor(target=target, rate=0)(image_set(), NAMES)
    assert found.backdoor.target == 2
    assert found.backdoor.trigger is PATCH
    assert NoCorruption()(image_set(), NAMES).backdoor is None


@given(rates, st.integers(0, 9))
def test_permuted_labels_keep_the_size_of_each_class(rate, seed):
    clean = image_set()
    found = NOISE["permuted"](rate, seed)(clean, NAMES)
    assert torch.equal(found.images.labels.bincount(), clean.labels.bincount())


@pytest.mark.parametrize(("kind", "fraction"), [("permuted", 3 / 4), ("uniform", 3 / 4)])
def test_random_labels_change_less_than_their_rate(kind, fraction):
    found = NOISE[kind](0.5, 0)(image_set(8000), NAMES)
    assert found.effective_rate == pytest.approx(0.5 * fraction, abs=0.02)


@given(rates, st.integers(0, 9))
def test_labels_mistaken_for_the_next_all_change(rate, seed):
    clean = image_set()
    found = NOISE["asymmetric"](rate, seed)(clean, NAMES)
    assert found.effective_rate == pytest.approx(rate)
    expected = torch.where(found.is_corrupted, (clean.labels + 1) % 4, clean.labels)
    assert torch.equal(found.images.labels, expected)


@pytest.mark.parametrize("corruption", [NoCorruption(), backdoor(rate=0)], ids=["none", "0"])
def test_nothing_can_be_done_to_no_images(corruption):
    done = corruption(image_set(0), NAMES)
    assert (len(done.images), len(done.is_corrupted), done.effective_rate) == (0, 0, 0.0)


def one_class():
    return ImageSet(image_set().images, torch.ones(COUNT, dtype=torch.int64))


REFUSED = {
    "corruption.rate is 1.5: give a share": lambda: backdoor(rate=1.5),
    "corruption.rate is -0.1: give a share": lambda: NOISE["uniform"](-0.1, 0),
    "corruption.rate is nan": lambda: backdoor(rate=float("nan")),
    "no class 'dgo' among the 4: the nearest are dog, ": lambda: backdoor(target="dgo")(
        image_set(), NAMES
    ),
    "no class 4 among the 4: give a name or an index in 0-3": lambda: backdoor(target=4)(
        image_set(), NAMES
    ),
    "the images are 6x6: lower the trigger's size": lambda: backdoor(
        trigger=Patch(size=7, corner="top-left", margin=0), rate=0
    )(image_set(), NAMES),
    "is 20, and 10 may be corrupted: give 0.25 or less": lambda: backdoor(
        rate=0.5, variant=CleanLabel()
    )(image_set(), NAMES),
    "is less than one image: give 0, or 0.025 or more": lambda: backdoor(rate=0.01)(
        image_set(), NAMES
    ),
    "two classes or more, and these are all of 'dog'": lambda: NOISE["permuted"](0.5, 0)(
        one_class(), NAMES
    ),
    "label noise needs training images, and the data have none": lambda: NOISE["uniform"](0.5, 0)(
        image_set(0), NAMES
    ),
    "a rate of 0.1 of no training images is of nothing: give 0": lambda: backdoor()(
        image_set(0), NAMES
    ),
    "no trigger picture nowhere.png: set corruption.trigger.picture.path": lambda: PictureFile(
        path="nowhere.png"
    ).draw((3, 6, 6)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_done_is_refused_with_the_remedy(message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        REFUSED[message]()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 4, 6), (2, 4, 6)], ids=str)
def test_a_picture_is_stretched_to_the_images(tmp_path, shape):
    file = tmp_path / "trigger.png"
    picture = Image.new("RGB", (120, 80), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 60, 80))
    picture.save(file)
    drawn = PictureFile(path=str(file)).draw(shape)
    assert drawn.shape == shape
    left, right = drawn[:, 1, 0].tolist(), drawn[:, 1, -1].tolist()
    if shape[0] == 3:
        assert (left, right) == ([0, 0, 1], [1, 0, 0])
    else:
        assert left == pytest.approx([29 / 255] * shape[0])
        assert right == pytest.approx([76 / 255] * shape[0])


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    file = tmp_path / "trigger.png"
    file.write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        PictureFile(path=str(file)).draw((3, 4, 4))


def corrupted(corruption):
    data = image_data()
    data.corrupt(corruption)
    return data


@each_kind
def test_data_train_on_the_corrupted_images_and_test_on_clean_ones(build, data):
    changed = corrupted(build(0.5, 0))
    assert changed.splits.train is changed.corrupted.images
    assert same(changed.clean, data.splits.train)
    assert same(changed.splits.test, data.splits.test)
    ((images, labels, _),) = next(iter(changed.batches(size=60, seeds=[1]).train_dataloader()))
    order = torch.randperm(60, generator=stream(1, 0))
    expected = data.normalization.from_bytes(changed.splits.train.images[order])
    torch.testing.assert_close(images, expected)
    assert torch.equal(labels, changed.splits.train.labels[order])


@each_kind
def test_corrupted_images_are_known_by_another_fingerprint(build, data):
    changed = corrupted(build(0.5, 0))
    assert changed.fingerprint() != data.fingerprint()
    assert corrupted(build(0.5, 0)).fingerprint() == changed.fingerprint()
    assert corrupted(build(0, 0)).fingerprint() == data.fingerprint()


def test_a_corruption_takes_the_place_of_an_earlier_one(data):
    changed = corrupted(BACKDOORS["patch"](0.5, 0))
    changed.corrupt(NoCorruption())
    assert changed.fingerprint() == data.fingerprint()
    assert not changed.corrupted.is_corrupted.any()
    changed.corrupt(NOISE["uniform"](0.5, 0))
    changed.setup()
    assert changed.fingerprint() == corrupted(NOISE["uniform"](0.5, 0)).fingerprint()
