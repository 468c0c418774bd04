"""Corruptions of training images, and the laws that all of them obey."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.builders import image_data

from cwx.data.corruption import (
    Backdoor,
    CorruptionResult,
    LabelNoise,
    NoCorruption,
    PictureFile,
)
from cwx.data.corruption_changes import measure_changes
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
PATCH = Patch(size=2, corner="bottom-right", margin=0, first_pixel="white")


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
        trigger=Sinusoid(delta=20, frequency=1), rate=rate, seed=seed
    ),
    # A quarter of the images belongs to the target class.
    "clean label": lambda rate, seed: backdoor(rate=rate / 4, variant=CleanLabel(), seed=seed),
}
NOISE = {
    "permuted": lambda rate, seed: LabelNoise(kind=Permuted(), rate=rate, seed=seed),
    "uniform": lambda rate, seed: LabelNoise(kind=Uniform(), rate=rate, seed=seed),
    "asymmetric": lambda rate, seed: LabelNoise(kind=Asymmetric(to=None), rate=rate, seed=seed),
}
KINDS = {**BACKDOORS, **NOISE}

each_kind = pytest.mark.parametrize("build", KINDS.values(), ids=list(KINDS))
# Multiples of 0.1 give whole numbers of the 40 images and of the 10 images of a class.
rates = st.integers(1, 10).map(lambda tenths: tenths / 10)


def equal(a, b):
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


@pytest.mark.parametrize(
    "corruption",
    [NoCorruption(), *(build(0, 3) for build in NOISE.values())],
    ids=["none", *NOISE],
)
def test_a_rate_of_0_changes_nothing(corruption):
    images = image_set()
    result = corruption(images, NAMES)
    assert equal(result.images, images)
    assert not result.is_corrupted.any()
    assert result.effective_rate == 0


@each_kind
@given(rates, st.integers(0, 9))
def test_the_same_seed_corrupts_the_same_images(build, rate, seed):
    first, second = (build(rate, seed)(image_set(), NAMES) for _ in range(2))
    assert torch.equal(first.is_corrupted, second.is_corrupted)
    assert equal(first.images, second.images)


@each_kind
def test_another_seed_corrupts_other_images(build):
    first, second = (build(0.5, seed)(image_set(), NAMES) for seed in (0, 1))
    assert not torch.equal(first.is_corrupted, second.is_corrupted)


@each_kind
@given(rates, st.integers(0, 9))
def test_exactly_the_corrupted_images_differ(build, rate, seed):
    clean = image_set()
    result = build(rate, seed)(clean, NAMES)
    pixels = (result.images.images != clean.images).flatten(1).any(1)
    labels = result.images.labels != clean.labels
    assert result.is_corrupted.dtype == torch.bool
    assert torch.equal(result.is_corrupted, pixels | labels)
    assert result.effective_rate == pytest.approx(int(result.is_corrupted.sum()) / COUNT)
    assert equal(clean, image_set())


@given(rates, st.integers(0, 9))
def test_all_to_one_poisons_the_given_fraction_of_all_images(rate, seed):
    clean = image_set()
    result = backdoor(rate=rate, seed=seed)(clean, NAMES)
    assert result.effective_rate == pytest.approx(rate)
    assert (result.images.labels[result.is_corrupted] == 1).all()
    assert torch.equal(
        result.images.images[result.is_corrupted], PATCH.apply(clean.images[result.is_corrupted])
    )
    if rate == 1:
        assert (clean.labels[result.is_corrupted] == 1).any()


@given(rates, st.integers(0, 9))
def test_clean_labels_stay_and_the_target_class_alone_is_poisoned(rate, seed):
    clean = image_set()
    result = backdoor(rate=rate / 4, variant=CleanLabel(), seed=seed)(clean, NAMES)
    assert torch.equal(result.images.labels, clean.labels)
    assert (clean.labels[result.is_corrupted] == 1).all()
    assert result.effective_rate == pytest.approx(rate / 4)


@pytest.mark.parametrize("target", ["frog", 2])
def test_the_result_holds_the_backdoor_with_its_target(target):
    result = backdoor(target=target)(image_set(), NAMES)
    assert result.backdoor.target == 2
    assert result.backdoor.trigger is PATCH
    assert NoCorruption()(image_set(), NAMES).backdoor is None


@given(st.sampled_from([0.5, 1.0]), st.integers(0, 9))
def test_permuted_labels_keep_the_size_of_each_class(rate, seed):
    clean = image_set()
    result = NOISE["permuted"](rate, seed)(clean, NAMES)
    assert torch.equal(result.images.labels.bincount(), clean.labels.bincount())


@pytest.mark.parametrize(("kind", "fraction"), [("permuted", 3 / 4), ("uniform", 3 / 4)])
def test_random_labels_change_less_than_their_rate(kind, fraction):
    result = NOISE[kind](0.5, 0)(image_set(8000), NAMES)
    assert result.effective_rate == pytest.approx(0.5 * fraction, abs=0.02)


@given(rates, st.integers(0, 9))
def test_asymmetric_noise_changes_every_selected_label(rate, seed):
    clean = image_set()
    result = NOISE["asymmetric"](rate, seed)(clean, NAMES)
    assert result.effective_rate == pytest.approx(rate)
    expected = torch.where(result.is_corrupted, (clean.labels + 1) % 4, clean.labels)
    assert torch.equal(result.images.labels, expected)


def test_corrupting_no_images_gives_no_images():
    result = NoCorruption()(image_set(0), NAMES)
    assert (len(result.images), len(result.is_corrupted), result.effective_rate) == (0, 0, 0.0)


def one_class():
    return ImageSet(image_set().images, torch.ones(COUNT, dtype=torch.int64))


def without_horses():
    images = image_set()
    return images.at(images.labels != 3)


REFUSED = {
    "corruption.rate is 1.5: give a fraction": lambda: backdoor(rate=1.5),
    "corruption.rate is -0.1: give a fraction": lambda: NOISE["uniform"](-0.1, 0),
    "corruption.rate is nan": lambda: backdoor(rate=float("nan")),
    "corruption.rate is 0, so that no image would be poisoned": lambda: backdoor(rate=0),
    "corruption.target is 'dgo', and there is no such class among the 4: the nearest are 'dog', ": (
        lambda: backdoor(target="dgo")(image_set(), NAMES)
    ),
    "corruption.target is 4, and there is no such class among the 4: give a name or an index in": (
        lambda: backdoor(target=4)(image_set(), NAMES)
    ),
    "the images are 6x6: lower corruption.trigger.size": lambda: backdoor(
        trigger=Patch(size=7, corner="top-left", margin=0, first_pixel="white")
    )(image_set(), NAMES),
    "corruption.rate is 0.5, which is 20 of the 40 training images, and 10 may be": (
        lambda: backdoor(rate=0.5, variant=CleanLabel())(image_set(), NAMES)
    ),
    "is less than one of the 40 training images: give 0.025 or more": lambda: backdoor(rate=0.01)(
        image_set(), NAMES
    ),
    "none of the training images, such as those of the target class 'horse' (index 3)": (
        lambda: backdoor(target=3, variant=CleanLabel())(without_horses(), NAMES)
    ),
    "two or more classes, but all are of class 'dog'": lambda: NOISE["permuted"](0.5, 0)(
        one_class(), NAMES
    ),
    "label noise needs training images, but the data have none": lambda: NOISE["uniform"](0.5, 0)(
        image_set(0), NAMES
    ),
    "corruption.rate is 0.1, and there are no training images: choose corruption=none": lambda: (
        backdoor()(image_set(0), NAMES)
    ),
    "no trigger picture nowhere.png: set corruption.trigger.picture.path": lambda: PictureFile(
        path="nowhere.png"
    ).draw((3, 6, 6)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_impossible_corruption_is_refused_with_the_remedy(message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        REFUSED[message]()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def flat(level):
    """Images of one level."""
    images = image_set()
    return ImageSet(torch.full_like(images.images, level), images.labels)


WITHOUT_EFFECT = {
    "a blend that rounds to nothing": (Blend(ratio=0.001, picture=Face()), flat(128)),
    "a white pixel on white images": (
        Patch(size=1, corner="top-left", margin=0, first_pixel="white"),
        flat(255),
    ),
    "stripes of 0 at this width": (Sinusoid(delta=20, frequency=6), flat(128)),
    "stripes that round to nothing": (Sinusoid(delta=0.4, frequency=1), flat(128)),
}


@pytest.mark.parametrize("variant", [AllToOne(), CleanLabel()], ids=["all", "clean label"])
@pytest.mark.parametrize("case", WITHOUT_EFFECT)
def test_a_trigger_that_changes_no_pixel_is_refused(case, variant):
    trigger, images = WITHOUT_EFFECT[case]
    with pytest.raises(ValueError, match=r"corruption\.trigger\.\w+"):
        backdoor(trigger=trigger, variant=variant, rate=0.2)(images, NAMES)


@given(
    st.floats(0, 1, exclude_min=True), st.integers(0, 255), st.integers(1, 9), st.integers(1, 300)
)
def test_a_trigger_changes_pixels_or_is_refused(strength, level, width, frequency):
    images = torch.full((4, 3, 5, width), level, dtype=torch.uint8)
    clean = ImageSet(images, torch.tensor([0, 0, 1, 1]))
    for trigger in (
        Blend(ratio=strength, picture=Face()),
        Sinusoid(delta=255 * strength, frequency=frequency / 10),
        Patch(size=1 + frequency % 3, corner="bottom-right", margin=0, first_pixel="white"),
    ):
        try:
            result = backdoor(trigger=trigger, rate=0.5, target=0)(clean, ("a", "b"))
        except ValueError:
            continue
        assert (result.images.images != images).any()


def test_an_image_that_already_shows_the_trigger_is_not_corrupted():
    clean = image_set()
    clean.images[::2] = PATCH.apply(clean.images[::2])
    result = backdoor(rate=1)(clean, NAMES)
    # Images of the target class that already show it keep their pixels and their label.
    unchanged = (torch.arange(COUNT) % 2 == 0) & (clean.labels == 1)
    assert torch.equal(result.is_corrupted, ~unchanged)
    changes = measure_changes(clean, result.images)
    assert torch.equal(changes.pixels, torch.arange(COUNT) % 2 == 1)
    assert torch.equal(changes.labels, clean.labels != 1)
    pixels = (result.images.images.double() - clean.images.double()).abs()[1::2]
    assert changes.mean == pytest.approx(pixels.mean().item())


LABELS_STAY = {
    "one permuted label": LabelNoise(kind=Permuted(), rate=0.025, seed=0),
    "a class without images": LabelNoise(kind=Asymmetric(to={"horse": "cat"}), rate=1, seed=0),
}


@pytest.mark.parametrize("noise", LABELS_STAY.values(), ids=list(LABELS_STAY))
def test_noise_that_changes_no_label_is_refused(noise):
    images = image_set()
    with pytest.raises(ValueError, match=r"corruption\.rate is .* changes none of the \d+ labels"):
        noise(ImageSet(images.images, images.labels % 3), NAMES)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            lambda s: CorruptionResult(s, torch.ones(60, dtype=torch.bool), None),
            "marks 60 .* 0 dif",
        ),
        (
            lambda s: CorruptionResult(
                ImageSet(255 - s.images, s.labels), torch.zeros(60, dtype=torch.bool), None
            ),
            "marks 0 images as corrupted, and 60 differ",
        ),
        (
            lambda s: CorruptionResult(
                ImageSet(s.images / 255, s.labels), torch.ones(60, dtype=torch.bool), None
            ),
            "of torch.float32: return bytes",
        ),
        (
            lambda s: CorruptionResult(
                ImageSet(s.images, s.labels + 1), torch.ones(60, dtype=torch.bool), None
            ),
            "in 1-3: return class indices .* in 0-2",
        ),
        (lambda s: s, "returned ImageSet"),
    ],
)
def test_a_corruption_of_a_user_must_mark_what_it_changed(result, message):
    with pytest.raises(ValueError, match=message):
        image_data().corrupt(lambda images, _: result(images))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_transparent_trigger_picture_is_refused(tmp_path, mode):
    file = tmp_path / "trigger.png"
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    picture.save(file)
    assert PictureFile(path=str(file)).draw((3, 4, 4)).max() == 1
    picture.putpixel((3, 3), (0, 0, 0, 0))
    if mode == "P":
        picture.convert("RGB").quantize(4).save(file, transparency=0)
    else:
        picture.convert(mode).save(file)
    with pytest.raises(ValueError, match="trigger.png.*transparent"):
        PictureFile(path=str(file)).draw((3, 4, 4))


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


def test_a_file_that_is_not_an_image_is_refused(tmp_path):
    file = tmp_path / "trigger.png"
    file.write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        PictureFile(path=str(file)).draw((3, 4, 4))


def corrupt(corruption):
    data = image_data()
    data.corrupt(corruption)
    return data


@each_kind
def test_data_train_on_the_corrupted_images_and_test_on_clean_ones(build, data):
    corrupted_data = corrupt(build(0.5, 0))
    assert corrupted_data.splits.train is corrupted_data.corrupted.images
    assert equal(corrupted_data.clean, data.splits.train)
    assert equal(corrupted_data.splits.test, data.splits.test)
    ((images, labels, _),) = next(
        iter(corrupted_data.batches(size=60, seeds=[1]).train_dataloader())
    )
    order = torch.randperm(60, generator=stream(1, 0))
    expected = data.normalization.from_bytes(corrupted_data.splits.train.images[order])
    torch.testing.assert_close(images, expected)
    assert torch.equal(labels, corrupted_data.splits.train.labels[order])


@each_kind
def test_corrupted_images_have_another_fingerprint(build, data):
    corrupted_data = corrupt(build(0.5, 0))
    assert corrupted_data.fingerprint() != data.fingerprint()
    assert corrupt(build(0.5, 0)).fingerprint() == corrupted_data.fingerprint()


def test_a_corruption_replaces_an_earlier_one(data):
    corrupted_data = corrupt(BACKDOORS["patch"](0.5, 0))
    corrupted_data.corrupt(NoCorruption())
    assert corrupted_data.fingerprint() == data.fingerprint()
    assert not corrupted_data.corrupted.is_corrupted.any()
    corrupted_data.corrupt(NOISE["uniform"](0.5, 0))
    corrupted_data.setup()
    assert corrupted_data.fingerprint() == corrupt(NOISE["uniform"](0.5, 0)).fingerprint()
