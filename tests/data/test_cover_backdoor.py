"""Backdoors with cover images: which images change, which labels stay, what counts as poisoned."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.builders import Blobs, image_data

from cwx.data.corruption import Backdoor, CorruptionResult, PictureFile, check_result
from cwx.data.cover_backdoor import CoverBackdoor
from cwx.data.mask_file import MaskFile
from cwx.data.splits import ImageSet
from cwx.evaluations.backdoor import poison_detection
from cwx.evaluations.backdoor.attack_success import AttackSuccess
from cwx.evaluations.backdoor.poison_detection import PoisonDetection
from cwx.evaluations.backdoor.revealed_trigger import RevealedTrigger
from cwx.evaluations.backdoor.suspects import Suspicion, poisoned_images
from cwx.explanations.images import Explanations
from cwx.functional.adaptive_triggers import AdaptiveBlend, AdaptivePatch, FaintPatch
from cwx.functional.all_to_all import AllToAll
from cwx.functional.backdoor import AllToOne, CleanLabel, Face, Patch
from cwx.functional.input_aware import InputAware
from cwx.functional.patches import PicturePatch
from cwx.functional.rng import stream
from cwx.functional.warping import Warp
from cwx.report.corruption_line import corruption_line
from cwx.study.corruption_row import corruption_row
from cwx.training.plan import Plan

NAMES = ("cat", "dog", "frog", "horse")
COUNT = 40
PATCH = Patch(size=2, corner="top-left", margin=0, first_pixel="white")
TRIGGERS = {
    "input-aware": InputAware(area=0.1, width=4, depth=2, seed=0),
    "warp": Warp(points=4, strength=0.5, rescale=1.0, noise=1.0, seed=0),
    "adaptive blend": AdaptiveBlend(
        picture=Face(), ratio=0.3, test_ratio=0.4, pieces=2, fraction=0.5
    ),
    "adaptive patch": AdaptivePatch(
        patches=[
            FaintPatch(patch=PATCH, opacity=0.5, in_test=True),
            FaintPatch(patch=replace(PATCH, corner="top-right"), opacity=0.3, in_test=False),
        ]
    ),
}
each_trigger = pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=list(TRIGGERS))
rates = st.integers(1, 5).map(lambda tenths: tenths / 10)


def image_set(count=COUNT):
    images = torch.randint(1, 255, (count, 3, 6, 6), generator=stream(0), dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % len(NAMES))


def backdoor(trigger, *, rate=0.2, cover_rate=0.3, target=1, variant=None, seed=0):
    return CoverBackdoor(
        trigger=trigger,
        target=target,
        rate=rate,
        cover_rate=cover_rate,
        variant=variant or AllToOne(),
        seed=seed,
    )


@each_trigger
@given(rates, st.sampled_from([0, 0.1, 0.5]), st.integers(0, 9))
def test_poisoned_images_get_the_target_and_covers_keep_their_label(trigger, rate, covers, seed):
    clean = image_set()
    result = backdoor(trigger, rate=rate, cover_rate=covers, seed=seed)(clean, NAMES)
    check_result(result, clean, NAMES)
    assert result.is_poisoned.sum() == rate * COUNT
    assert result.is_cover.sum() == covers * COUNT
    assert not (result.is_poisoned & result.is_cover).any()
    assert torch.equal(result.is_poisoned | result.is_cover, result.is_corrupted)
    assert (result.images.labels[result.is_poisoned] == 1).all()
    assert torch.equal(result.images.labels[~result.is_poisoned], clean.labels[~result.is_poisoned])
    again = backdoor(trigger, rate=rate, cover_rate=covers, seed=seed)(image_set(), NAMES)
    assert torch.equal(again.images.images, result.images.images)
    plain = Backdoor(trigger=PATCH, target=1, rate=rate, variant=AllToOne(), seed=seed)
    assert torch.equal(plain(clean, NAMES).is_poisoned, result.is_poisoned)


@each_trigger
@given(rates, st.integers(0, 9))
def test_lower_rates_change_a_part_of_the_images_and_in_the_same_way(trigger, rate, seed):
    low, high = (
        backdoor(trigger, rate=r, cover_rate=0, seed=seed)(image_set(), NAMES)
        for r in (rate, rate + 0.1)
    )
    assert (high.is_poisoned | ~low.is_poisoned).all()
    shared = low.is_poisoned
    assert torch.equal(low.images.images[shared], high.images.images[shared])
    low, high = (
        backdoor(trigger, rate=0.2, cover_rate=c, seed=seed)(image_set(), NAMES)
        for c in (rate, rate + 0.1)
    )
    assert (high.is_cover | ~low.is_cover).all()
    assert torch.equal(low.images.images[low.is_cover], high.images.images[low.is_cover])


@each_trigger
def test_another_seed_changes_other_images(trigger):
    first, second = (backdoor(trigger, seed=seed)(image_set(), NAMES) for seed in (0, 1))
    assert not torch.equal(first.is_poisoned, second.is_poisoned)
    assert not torch.equal(first.is_cover, second.is_cover)


def test_covers_compose_with_other_variants():
    clean = image_set()
    all_to_all = backdoor(TRIGGERS["warp"], target=None, variant=AllToAll())(clean, NAMES)
    moved = all_to_all.is_poisoned
    assert torch.equal(all_to_all.images.labels[moved], (clean.labels[moved] + 1) % 4)
    clean_label = backdoor(TRIGGERS["warp"], variant=CleanLabel())(clean, NAMES)
    assert torch.equal(clean_label.images.labels, clean.labels)
    assert (clean.labels[clean_label.is_poisoned] == 1).all()


def flat():
    images = image_set()
    return ImageSet(torch.full_like(images.images, 128), images.labels)


WARP = TRIGGERS["warp"]
REFUSED = {
    "corruption.rate is 0, so that no image": lambda: backdoor(WARP, rate=0),
    "corruption.rate is 2: give": lambda: backdoor(WARP, rate=2),
    "corruption.cover_rate is -0.1: give a fraction": lambda: backdoor(WARP, cover_rate=-0.1),
    "are 0.6 and 0.5, which is more than all training images": lambda: backdoor(
        WARP, rate=0.6, cover_rate=0.5
    ),
    "cover_rate is 0.001, which is less than one of the 40 training images": lambda: backdoor(
        WARP, cover_rate=0.001
    )(image_set(), NAMES),
    "corruption.rate is 0.2, and there are no training images": lambda: backdoor(WARP)(
        image_set(0), NAMES
    ),
    "changes no pixel of the 8 training images that it should poison": lambda: backdoor(WARP)(
        flat(), NAMES
    ),
    "corruption.target is 9, and there is no such class": lambda: backdoor(WARP, target=9)(
        image_set(), NAMES
    ),
    "there is no mask nowhere.png: set corruption.trigger.mask_picture.path": lambda: MaskFile(
        path="nowhere.png"
    ).size(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_impossible_corruption_is_refused(message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        REFUSED[message]()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


CHANGED = torch.arange(COUNT) < 8
WRONG_COVERS = {
    "cover images by torch.int64 .40.": torch.zeros(COUNT, dtype=torch.int64),
    "cover images by torch.bool .3.": torch.zeros(3, dtype=torch.bool),
    "marks 8 images as covers whose label differs": CHANGED,
    "marks 32 images as covers whose label": ~CHANGED,
}


@pytest.mark.parametrize("message", WRONG_COVERS)
def test_a_corruption_of_a_user_must_mark_covers_as_they_are(message):
    clean = image_set()
    labels = torch.where(CHANGED, (clean.labels + 1) % 4, clean.labels)
    result = CorruptionResult(ImageSet(clean.images, labels), CHANGED, None, WRONG_COVERS[message])
    with pytest.raises(ValueError, match=message):
        check_result(result, clean, NAMES)


def warped_blobs():
    data = image_data(Blobs())
    data.corrupt(backdoor(WARP, rate=0.1, cover_rate=0.2))
    return data


def test_covers_are_reported_and_do_not_count_as_poisoned():
    data = warped_blobs()
    row = corruption_row(data)
    assert (row["corrupted"], row["covers"]) == (18, 12)
    assert "; 12 of the corrupted images are covers, which keep their label; " in corruption_line(
        row
    )
    assert data.corrupted.is_poisoned.sum() == 6
    assert torch.equal(poisoned_images(data), data.corrupted.is_poisoned)


def test_detection_of_poisoned_images_is_not_measured_against_covers(subject, monkeypatch):
    data = warped_blobs()
    corrupted = data.corrupted

    def suspect(_, sources, **settings):
        mask = corrupted.is_poisoned
        suspicion = Suspicion(suspected=mask, initially_suspected=mask, label=1, separation={1: 1})
        return dict.fromkeys(sources, suspicion)

    monkeypatch.setattr(poison_detection, "suspicions", suspect)
    shown = Explanations(data.normalization.from_bytes(data.clean.images[::20]), torch.arange(3))
    outcome = PoisonDetection(separation=0.75)(replace(subject, data=data), {"known": shown})
    assert outcome.metrics["poison_detection/known/precision"] == 1
    assert outcome.metrics["poison_detection/known/recall"] == 1


def test_the_trigger_of_test_images_is_measured_and_a_warp_has_no_pattern_to_reveal(subject):
    data = warped_blobs()
    plan = Plan(data=data, methods=[], held_out=0)
    AttackSuccess().check(plan)
    assert AttackSuccess()(replace(subject, data=data), {}).metrics
    with pytest.raises(ValueError, match="revealed_trigger compares the pixels .* Warp .* leave"):
        RevealedTrigger(images=None, seconds=False).check(plan)


def picture_file(path, size, colour):
    Image.new("RGB", size, colour).save(path)
    return str(path)


def test_a_picture_and_its_mask_come_from_files_of_one_size(tmp_path):
    red = PictureFile(path=picture_file(tmp_path / "red.png", (8, 6), (255, 0, 0)))
    mask = Image.new("L", (8, 6), 0)
    mask.paste(255, (0, 0, 4, 6))
    mask.save(tmp_path / "mask.png")
    settings = {"opacity": 1.0, "size": 4, "row": 0, "column": 2}
    trigger = PicturePatch(
        picture=red, mask_picture=MaskFile(path=str(tmp_path / "mask.png")), **settings
    )
    applied = trigger.apply(torch.zeros(1, 3, 6, 6, dtype=torch.uint8))[0]
    assert applied[:, 0, 2].tolist() == [255, 0, 0]
    assert applied[:, 0, 5].tolist() == [0, 0, 0]
    other = MaskFile(path=picture_file(tmp_path / "other.png", (6, 8), (255, 255, 255)))
    with pytest.raises(ValueError, match="mask_picture is 8x6 pixels, .*picture is 6x8: give a"):
        PicturePatch(picture=red, mask_picture=other, **settings).mask((3, 6, 6))


CUTOUT = {"mask_picture": None, "opacity": 1.0, "size": 4, "row": 0, "column": 2}


def rgba_file(path, mode="RGBA"):
    """A red picture that is transparent in the right half and has alpha 51 (of 255) on the left."""
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 51))
    picture.paste((0, 255, 0, 0), (2, 0, 4, 4))
    picture.convert(mode).save(path)
    return PictureFile(path=str(path))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_the_alpha_channel_of_a_picture_is_its_mask(tmp_path, mode, channels):
    picture = rgba_file(tmp_path / "cutout.png", mode)
    trigger = PicturePatch(picture=picture, **CUTOUT | {"opacity": 0.5})
    expected = torch.zeros(6, 6)
    expected[:4, 2:4] = 1
    assert torch.equal(trigger.mask((channels, 6, 6)), expected)
    images = torch.full((1, channels, 6, 6), 200, dtype=torch.uint8)
    # The weight of the picture is opacity x alpha = 0.5 x 51 / 255 = 0.1.
    red = [255, 0, 0] if (mode, channels) == ("RGBA", 3) else [76] * channels
    applied = trigger.apply(images)[0]
    assert applied[:, 0, 2].tolist() == [round(0.9 * 200 + 0.1 * level) for level in red]
    assert torch.equal(applied[:, expected == 0], images[0][:, expected == 0])


def test_a_palette_with_a_transparent_colour_is_a_mask(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.paste(0, (0, 0, 4, 1))
    picture.save(tmp_path / "palette.gif", transparency=0)
    trigger = PicturePatch(picture=PictureFile(path=str(tmp_path / "palette.gif")), **CUTOUT)
    assert trigger.mask((3, 6, 6)).nonzero()[:, 0].unique().tolist() == [1, 2, 3]


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_opaque_alpha_channel_changes_nothing(tmp_path, channels, size):
    pixels = torch.randint(256, (5, 4, 3), generator=stream(1), dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    triggers = []
    for mode in ("RGB", "RGBA"):
        picture.convert(mode).save(tmp_path / f"{mode}.png")
        file = PictureFile(path=str(tmp_path / f"{mode}.png"))
        triggers.append(PicturePatch(picture=file, **CUTOUT | {"size": size}))
        shape = channels, size, size
        assert torch.equal(file.draw(shape), file.draw_cutout(shape)[0])
    images = torch.full((2, channels, 9, 9), 90, dtype=torch.uint8)
    without, opaque = (trigger.apply(images) for trigger in triggers)
    assert torch.equal(without, opaque)


def test_the_colours_behind_transparent_pixels_do_not_show(tmp_path):
    # Averaged without regard to alpha, the green pixels would colour the border.
    trigger = PicturePatch(picture=rgba_file(tmp_path / "cutout.png"), **CUTOUT | {"size": 3})
    images = torch.zeros(1, 3, 6, 6, dtype=torch.uint8)
    applied = trigger.apply(images)[0]
    assert applied[0].any()
    assert not applied[1:].any()


def test_a_picture_that_cannot_show_or_has_two_masks_is_refused(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "nothing.png")
    nothing = PicturePatch(picture=PictureFile(path=str(tmp_path / "nothing.png")), **CUTOUT)
    with pytest.raises(ValueError, match="picture is transparent everywhere .* give a picture"):
        nothing.mask((3, 6, 6))
    mask = MaskFile(path=picture_file(tmp_path / "mask.png", (4, 4), (255, 255, 255)))
    both = PicturePatch(
        picture=rgba_file(tmp_path / "cutout.png"), **CUTOUT | {"mask_picture": mask}
    )
    with pytest.raises(ValueError, match="transparent pixels, .*mask_picture=null .* its alpha"):
        both.apply(torch.zeros(1, 3, 6, 6, dtype=torch.uint8))
