"""Laws of warps, adaptive triggers and patches: formulas, masks, random draws, refusals."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.functional.adaptive_triggers import AdaptiveBlend, AdaptivePatch, FaintPatch
from cwx.functional.backdoor import Blend, Face, Patch, PatternTrigger, Sinusoid
from cwx.functional.input_aware import InputAware
from cwx.functional.patches import OneOf, PatchAt, PicturePatch
from cwx.functional.rng import stream
from cwx.functional.warping import Warp


def corner(corner="top-left", size=2, first_pixel="white"):
    return Patch(size=size, corner=corner, margin=0, first_pixel=first_pixel)


def warp(**settings):
    return Warp(
        **{"points": 4, "strength": 0.5, "rescale": 1.0, "noise": 1.0, "seed": 0} | settings
    )


def blend(**settings):
    settings = {"ratio": 0.15, "test_ratio": 0.2, "pieces": 4, "fraction": 0.5} | settings
    return AdaptiveBlend(picture=Face(), **settings)


def picture_patch(**settings):
    settings = {"mask_picture": None, "opacity": 1.0, "size": 3, "row": 1, "column": 2} | settings
    return PicturePatch(picture=Face(), **settings)


def patch_at(**settings):
    return PatchAt(**{"size": 2, "row": 1, "column": 3, "first_pixel": "white"} | settings)


FAINT = (
    FaintPatch(patch=corner(), opacity=0.5, in_test=True),
    FaintPatch(patch=corner("top-right"), opacity=0.2, in_test=False),
    FaintPatch(patch=corner("bottom-right"), opacity=0.3, in_test=True),
)
COVER_TRIGGERS = {
    "warp": warp(),
    "adaptive blend": blend(),
    "adaptive patch": AdaptivePatch(patches=FAINT),
    "input-aware": InputAware(area=0.1, width=4, depth=3, seed=0),
}
PATCHES = {
    "patch at": patch_at(),
    "picture": picture_patch(),
    "faint picture": picture_patch(opacity=0.3),
    "one of": OneOf(triggers=[corner(), corner("top-right"), picture_patch(size=2, row=3)]),
}
TRIGGERS = COVER_TRIGGERS | PATCHES
SHAPES = [(3, 32, 32), (1, 8, 8), (2, 5, 9)]

each_trigger = pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=list(TRIGGERS))
each_cover = pytest.mark.parametrize("trigger", COVER_TRIGGERS.values(), ids=list(COVER_TRIGGERS))
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def pictures(shape, count=6, seed=0):
    return torch.randint(256, (count, *shape), generator=stream(seed), dtype=torch.uint8)


@each_trigger
@each_shape
def test_a_trigger_returns_new_bytes_and_changes_each_image_on_its_own(trigger, shape):
    images = pictures(shape)
    before = images.clone()
    result = trigger.apply(images)
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)
    assert not torch.equal(result, images)
    assert torch.equal(result[2:4], trigger.apply(images[2:4]))
    assert trigger.apply(images[:0]).shape == (0, *shape)


@each_trigger
@each_shape
def test_pixels_change_only_under_the_mask(trigger, shape):
    images = pictures(shape, count=256)
    changed = (trigger.apply(images) != images).any(0).any(0)
    mask = trigger.mask(shape)
    assert mask.shape == shape[1:]
    if isinstance(trigger, InputAware):
        # Its mask is all that some image may show, and few images show all of it.
        assert mask.all()
    else:
        assert torch.equal(mask, changed.float())


@each_cover
@each_shape
@pytest.mark.parametrize("kind", ["poison", "cover"])
def test_training_images_change_by_the_generator_and_not_by_their_number(trigger, shape, kind):
    images, change = pictures(shape), getattr(trigger, kind)
    before = images.clone()
    first, second = (change(images, stream(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    assert (first.dtype, first.shape) == (torch.uint8, images.shape)
    assert torch.equal(change(images[:4], stream(3)), first[:4])
    assert change(images[:0], stream(3)).shape == (0, *shape)


@given(
    st.integers(2, 6), st.floats(0.1, 3), st.integers(2, 9), st.integers(2, 9), st.integers(0, 9)
)
def test_a_warp_interpolates_between_displaced_pixels(points, strength, height, width, seed):
    """Each pixel is the bilinear mean of the four pixels around its displaced position."""
    images = pictures((1, height, width), count=1)
    trigger = warp(points=points, strength=strength, seed=seed)
    field = 2 * torch.rand(1, 2, points, points, generator=stream(seed)) - 1
    field = (field / field.abs().mean()).double()
    smooth = torch.nn.functional.interpolate(
        field, size=(height, width), mode="bicubic", align_corners=True
    )
    warped = trigger.apply(images)
    for row in range(height):
        for column in range(width):
            # A displacement of s f / side, where the side is 2 long and has side − 1 steps.
            x = column + strength * smooth[0, 0, row, column].item() * (width - 1) / width / 2
            y = row + strength * smooth[0, 1, row, column].item() * (height - 1) / height / 2
            literal = bilinear(
                images[0, 0].tolist(), max(0, min(y, height - 1)), max(0, min(x, width - 1))
            )
            assert abs(warped[0, 0, row, column].item() - literal) <= 0.51


def bilinear(rows, y, x):
    top, left = min(int(y), len(rows) - 1), min(int(x), len(rows[0]) - 1)
    bottom, right = min(top + 1, len(rows) - 1), min(left + 1, len(rows[0]) - 1)
    down, along = y - top, x - left
    above = rows[top][left] * (1 - along) + rows[top][right] * along
    below = rows[bottom][left] * (1 - along) + rows[bottom][right] * along
    return above * (1 - down) + below * down


def test_a_warp_is_fixed_by_its_seed_and_keeps_flat_images():
    images = pictures((3, 16, 16))
    assert torch.equal(warp().poison(images, stream(1)), warp().apply(images))
    assert not torch.equal(warp().apply(images), warp(seed=1).apply(images))
    flat = torch.full_like(images, 77)
    assert torch.equal(warp().apply(flat), flat)
    assert torch.equal(warp().cover(flat, stream(0)), flat)


def test_the_noise_of_covers_differs_by_image_and_ends_at_half_a_pixel():
    # Ramps: the change of a level is the displacement along the columns.
    ramp = (8 * torch.arange(32)).byte().expand(4, 1, 32, 32).contiguous()
    covers, warped = warp().cover(ramp, stream(0)).float(), warp().apply(ramp).float()
    noise = (covers - warped) / 8
    assert not torch.equal(covers[0], covers[1])
    assert noise.abs().max() <= 0.5 + 1 / 8
    assert noise.abs().mean() > 0.15


@given(st.floats(0.01, 1), st.integers(2, 12), st.integers(2, 12), st.integers(0, 9))
def test_an_input_aware_trigger_changes_at_most_its_area_and_depends_on_the_image(
    area, height, width, seed
):
    images = pictures((3, height, width), seed=seed)
    trigger = InputAware(area=area, width=4, depth=2, seed=seed)
    changed = (trigger.apply(images) != images).any(1)
    assert (changed.sum((1, 2)) <= max(1, round(area * height * width))).all()
    # With the whole area, nothing but the pattern remains.
    whole = InputAware(area=1.0, width=4, depth=2, seed=seed).apply(images)
    assert not torch.equal(whole[0], whole[1])


def test_a_cover_carries_the_trigger_of_the_image_before_it():
    images = pictures((3, 8, 8))
    whole = InputAware(area=1.0, width=4, depth=3, seed=0)
    covers, own = whole.cover(images, stream(0)), whole.apply(images)
    assert torch.equal(covers[1:], own[:-1])
    assert torch.equal(covers[:1], whole.apply(images[:1].flip(-1)))


def test_a_change_that_depends_on_the_image_has_no_pattern():
    for trigger in (warp(), COVER_TRIGGERS["input-aware"]):
        assert not isinstance(trigger, PatternTrigger)
    patterned = [Sinusoid(delta=20, frequency=6), blend(), *PATCHES.values()]
    assert all(isinstance(trigger, PatternTrigger) for trigger in patterned)


@given(st.integers(1, 5), st.sampled_from([0.25, 0.5, 1]), st.integers(0, 9))
def test_each_training_image_shows_the_same_number_of_random_pieces(pieces, fraction, seed):
    trigger = blend(ratio=1.0, pieces=pieces, fraction=max(fraction, 1 / pieces**2))
    images = torch.full((5, 1, 10, 10), 128, dtype=torch.uint8)
    picture = Blend(ratio=1.0, picture=Face()).apply(images)
    changed = trigger.poison(images, stream(seed))
    index = torch.arange(10) * pieces // 10
    for image, full, original in zip(changed, picture, images, strict=True):
        shown = 0
        for row in range(pieces):
            for column in range(pieces):
                part = (
                    slice(None),
                    *torch.meshgrid(
                        (index == row).nonzero()[:, 0],
                        (index == column).nonzero()[:, 0],
                        indexing="ij",
                    ),
                )
                is_shown = torch.equal(image[part], full[part])
                assert is_shown or torch.equal(image[part], original[part])
                shown += is_shown
        assert shown == round(trigger.fraction * pieces**2)


def test_an_adaptive_blend_is_stronger_in_tests():
    images = pictures((3, 32, 32))
    assert torch.equal(blend().apply(images), Blend(ratio=0.2, picture=Face()).apply(images))
    shown = blend().poison(images, stream(0))
    changed = shown != images
    assert torch.equal(shown[changed], Blend(ratio=0.15, picture=Face()).apply(images)[changed])
    assert 0.4 < changed.float().mean() < 0.5


def test_training_images_carry_faint_patches_in_turn_and_test_images_those_of_tests():
    trigger, images = AdaptivePatch(patches=FAINT), torch.zeros(7, 1, 6, 6, dtype=torch.uint8)
    poisoned = trigger.poison(images, stream(0))
    for index, image in enumerate(poisoned):
        faint = FAINT[index % 3]
        expected = (255 * faint.opacity * faint.patch.pattern((1, 6, 6))).round()
        assert torch.equal(image, expected.byte())
    applied = trigger.apply(images[:1])[0]
    both = FAINT[0].patch.pattern((1, 6, 6)) + FAINT[2].patch.pattern((1, 6, 6))
    assert torch.equal(applied, (255 * both).byte())
    assert torch.equal(trigger.pattern((1, 6, 6)), both)


def test_each_image_carries_one_of_the_triggers_and_all_occur():
    images = pictures((3, 8, 8), count=600)
    trigger = PATCHES["one of"]
    choice, applied = trigger.choice(images), trigger.apply(images)
    for index, part in enumerate(trigger.triggers):
        assert torch.equal(applied[choice == index], part.apply(images[choice == index]))
    assert ((choice.bincount() / 600 - 1 / 3).abs() < 0.1).all()


@given(st.integers(1, 4), st.integers(0, 9), st.integers(0, 9), st.floats(0.05, 1))
def test_patches_lie_at_their_row_and_column(size, row, column, opacity):
    images = pictures((3, 12, 13), count=2)
    if row + size > 12 or column + size > 13:
        return
    area = (..., slice(row, row + size), slice(column, column + size))
    board = Patch(size=size, corner="top-left", margin=0, first_pixel="black")
    placed = patch_at(size=size, row=row, column=column, first_pixel="black").apply(images)
    assert torch.equal(placed[area], board.apply(images[area]))
    picture = picture_patch(size=size, row=row, column=column, opacity=opacity).apply(images)
    mixed = (1 - opacity) * images[area] + opacity * 255 * Face().draw((3, size, size))
    assert (picture[area] - mixed).abs().max() <= 0.51
    for result in (placed, picture):
        result[area] = images[area]
        assert torch.equal(result, images)


class Half:
    """A mask: white on the left."""

    def draw(self, shape):
        mask = torch.zeros(*shape)
        mask[..., : shape[-1] // 2] = 1
        return mask


class Black:
    def draw(self, shape):
        return torch.zeros(*shape)


class Sized(Face):
    def __init__(self, height, width):
        object.__setattr__(self, "shape", (height, width))

    def size(self):
        return self.shape


def test_a_mask_shows_the_image_where_it_is_black():
    images = pictures((3, 8, 8))
    trigger = picture_patch(size=4, mask_picture=Half())
    assert trigger.mask((3, 8, 8)).sum() == 8
    changed = (trigger.apply(images) != images).any(0).any(0)
    assert not changed[:, 4:].any()
    assert not changed[:, :2].any()


WRONG_SIZES = PicturePatch(
    picture=Sized(20, 10), mask_picture=Sized(10, 20), opacity=1.0, size=2, row=0, column=0
)
REFUSED = {
    "corruption.trigger.area is 0: give above 0": lambda: InputAware(
        area=0, width=4, depth=2, seed=0
    ),
    "corruption.trigger.depth is 0: give 1 to 16": lambda: InputAware(
        area=0.1, width=4, depth=0, seed=0
    ),
    "corruption.trigger.points is 1: give 2 to 1000": lambda: warp(points=1),
    "corruption.trigger.strength is 0: give above 0": lambda: warp(strength=0),
    "corruption.trigger.noise is -1: give above 0": lambda: warp(noise=-1),
    "corruption.trigger.rescale is nan: give above 0": lambda: warp(rescale=math.nan),
    "corruption.trigger.test_ratio is 2: give above 0": lambda: blend(test_ratio=2),
    "fraction is 0.01, which is less than one of the 16 pieces: give 0.062": lambda: blend(
        fraction=0.01
    ),
    "pieces is 4, and the images are 3x9: give 3 or less": lambda: blend().poison(
        pictures((1, 3, 9)), stream(0)
    ),
    "the opacity of a patch of corruption.trigger.patches is 0": lambda: FaintPatch(
        patch=corner(), opacity=0, in_test=True
    ),
    "none of the 1 patches of corruption.trigger.patches is in test": lambda: AdaptivePatch(
        patches=FAINT[1:2]
    ),
    "none of the 0 patches": lambda: AdaptivePatch(patches=[]),
    "corruption.trigger.triggers has 1 trigger: give two": lambda: OneOf(triggers=[corner()]),
    "corruption.trigger.row is -1: give 0 or more": lambda: patch_at(row=-1),
    "corruption.trigger.size is 0: give 1 or more": lambda: patch_at(size=0),
    "takes 2x2 pixels from row 7 and column 3, the images are 8x8": lambda: patch_at(row=7).mask(
        (1, 8, 8)
    ),
    "takes 3x3 pixels from row 1 and column 6, the images are 8x8": lambda: picture_patch(
        column=6
    ).apply(pictures((3, 8, 8))),
    "corruption.trigger.opacity is 0: give above 0": lambda: picture_patch(opacity=0),
    "mask_picture is 10x20 pixels, and corruption.trigger.picture is 20x10": lambda: (
        WRONG_SIZES.apply(pictures((3, 8, 8)))
    ),
    "mask_picture is black at the patch's size": lambda: picture_patch(mask_picture=Black()).mask(
        (3, 8, 8)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_impossible_trigger_is_refused(message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        REFUSED[message]()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
