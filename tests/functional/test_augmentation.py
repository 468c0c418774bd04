"""Properties of each augmentation operation."""

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from support.paths import CONF

from cwx.functional import augmentation as augmentation_module
from cwx.functional.augmentation import (
    Augmentation,
    Chain,
    Colour,
    Crop,
    Cutout,
    Flip,
    Rotate,
    Scale,
    Strategy,
)
from cwx.functional.rng import stream

AUGMENT_CONFIGS = CONF / "augment"
OPERATIONS = {
    "crop": Crop(shift=0.25),
    "rotate": Rotate(degrees=40),
    "scale": Scale(factor=1.5),
    "flip": Flip(probability=0.5),
    "cutout": Cutout(side=0.5),
    "colour": Colour(brightness=0.5, saturation=2, contrast=0.5),
    "chain": Chain(operations={"scale": Scale(factor=1.5), "flip": Flip(probability=0.5)}),
}
ALL = Strategy(OPERATIONS)
STRATEGIES = {name: Strategy({name: operation}) for name, operation in OPERATIONS.items()}
STRATEGIES |= {"none": Strategy({}), "all": ALL}
BELOW_ONE = torch.tensor(1.0).nextafter(torch.tensor(0.0)).item()

each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=list(STRATEGIES))


def pictures(count=6, height=5, width=8, seed=0, dtype=torch.float64):
    """Images of three channels with values in ±3, none of them 0."""
    images = 3 * torch.rand(count, 3, height, width, dtype=dtype, generator=stream(seed))
    signs = torch.randn(images.shape, generator=stream(seed, 1)).sign()
    return (images + 0.01) * signs.to(dtype)


def ramps(height, width, slopes):
    """Images whose value is slope · (x, y), counted from the centre."""
    y, x = (torch.arange(side).double() - (side - 1) / 2 for side in (height, width))
    return torch.stack([a * x + b * y[:, None] for a, b in slopes])[:, None]


def row(*values):
    return torch.tensor([values], dtype=torch.float32)


@each_strategy
def test_the_same_seed_gives_the_same_images(strategy):
    images = pictures()
    for step in range(9):
        first, second = (strategy.draw(6, stream(step))(images) for _ in range(2))
        assert torch.equal(first, second)


@each_operation
def test_each_image_has_parameters_of_its_own(operation):
    parameters = operation.draw(64, stream(0))
    assert all(len(column.unique()) > 1 for column in parameters.T)
    alike = pictures(1).expand(64, -1, -1, -1)
    assert len(operation.apply(alike, parameters).unique(dim=0)) > 1


@each_strategy
def test_the_seed_alone_decides_what_is_drawn(strategy):
    expected = [strategy.draw(4, stream(step)) for step in range(9)]
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = [strategy.draw(4, stream(step)) for step in range(9)]
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(found, expected, strict=True):
        assert a.operation == b.operation
        assert a.parameters.dtype == torch.float32
        assert torch.equal(a.parameters, b.parameters)


@each_strategy
@given(count=st.integers(0, 9), ranks=st.integers(1, 4))
def test_the_parts_of_all_ranks_make_up_the_whole(strategy, count, ranks):
    images = pictures(count)
    augmentation = strategy.draw(count, stream(count))
    whole, put_together = augmentation(images), torch.full_like(images, torch.nan)
    for rank in range(ranks):
        put_together[rank::ranks] = augmentation.part(rank, ranks)(images[rank::ranks])
    torch.testing.assert_close(put_together, whole, atol=1e-5, rtol=0)


@each_strategy
@pytest.mark.parametrize("index", [slice(1, 4), torch.tensor([5, 0]), torch.arange(6) % 2 == 0])
def test_an_index_takes_the_rows_of_some_images(strategy, index):
    images, augmentation = pictures(), strategy.draw(6, stream(3))
    found = augmentation[index](images[index])
    torch.testing.assert_close(found, augmentation(images)[index], atol=1e-5, rtol=0)


@each_operation
def test_each_image_is_changed_by_its_own_row(operation):
    images, parameters, others = pictures(), operation.draw(6, stream(0)), pictures(seed=5)
    found = operation.apply(torch.cat([images[:1], others[1:]]), parameters)[0]
    torch.testing.assert_close(found, operation.apply(images, parameters)[0])


@each_strategy
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_images_are_left_alone_and_keep_shape_and_type(strategy, dtype):
    images = pictures(dtype=dtype)
    before, augmentation = images.clone(), strategy.draw(6, stream(0))
    drawn = augmentation.parameters.clone()
    found = augmentation(images)
    assert (found.shape, found.dtype) == (images.shape, dtype)
    assert torch.equal(images, before)
    assert torch.equal(augmentation.parameters, drawn)


@each_operation
def test_half_precision_does_not_move_pixels(operation):
    images, parameters = ramps(40, 60, [(0.05, 0.05)] * 6).float(), operation.draw(6, stream(0))
    expected = operation.apply(images, parameters)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(operation.apply(images, parameters), expected)
    rounded = operation.apply(images.bfloat16(), parameters).float()
    assert (rounded - expected).abs().mean() < 0.004 * expected.abs().mean()


@each_operation
def test_gradient(operation):
    parameters = operation.draw(2, stream(4))
    images = pictures(2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda images: operation.apply(images, parameters), images)


NOTHING = {
    "no operation": (Strategy({}), 0),
    "crop": (Strategy({"": Crop(shift=0)}), 0),
    "crop by less than half a pixel": (Strategy({"": Crop(shift=0.06)}), 0),
    "flip": (Strategy({"": Flip(probability=0)}), 0),
    "cutout": (Strategy({"": Cutout(side=0)}), 0),
    "rotate": (Strategy({"": Rotate(degrees=0)}), 1e-5),
    "scale": (Strategy({"": Scale(factor=1)}), 1e-5),
}


@pytest.mark.parametrize(("strategy", "tolerance"), NOTHING.values(), ids=list(NOTHING))
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_neutral_settings_do_not_change_images(strategy, tolerance, height, width, seed):
    images = pictures(4, height, width)
    found = strategy.draw(4, stream(seed))(images)
    torch.testing.assert_close(found, images, atol=tolerance, rtol=0)


RANGES = {
    "crop": (OPERATIONS["crop"], [(0, 1), (0, 1)]),
    "rotate": (OPERATIONS["rotate"], [(-40, 40)]),
    "scale": (OPERATIONS["scale"], [(1 / 1.5, 1.5)] * 2),
    "flip": (OPERATIONS["flip"], [(0, 1)]),
    "cutout": (OPERATIONS["cutout"], [(0, 1), (0, 1)]),
    "colour": (OPERATIONS["colour"], [(-0.5, 0.5), (0, 2), (0.5, 1.5)]),
}


@pytest.mark.parametrize(("operation", "ranges"), RANGES.values(), ids=list(RANGES))
def test_parameters_fill_their_ranges(operation, ranges):
    drawn = operation.draw(2000, stream(0))
    assert drawn.shape == (2000, len(ranges))
    for column, (low, high) in zip(drawn.T, ranges, strict=True):
        near = 0.01 * (high - low)
        assert low - 1e-6 <= column.min() <= low + near
        assert high - near <= column.max() <= high + 1e-6
        assert abs(column.mean() - (low + high) / 2) < 5 * near


@given(st.floats(0, 1))
def test_the_fraction_of_flips_is_the_probability(probability):
    drawn = Flip(probability=probability).draw(2000, stream(1))
    assert abs(drawn.mean() - probability) < 0.05


def moved(images, down, right):
    """Pixel by pixel: what lies that much further down and right, or 0."""
    found = torch.zeros_like(images)
    height, width = images.shape[-2:]
    for y in range(height):
        for x in range(width):
            if 0 <= y + down < height and 0 <= x + right < width:
                found[..., y, x] = images[..., y + down, x + right]
    return found


def test_a_crop_is_one_of_the_moves_within_reach_and_each_occurs():
    image = pictures(1)
    moves = {
        (down, right): moved(image, down, right) for down in (-1, 0, 1) for right in range(-2, 3)
    }
    cropped = Crop(shift=0.25).apply(
        image.expand(300, -1, -1, -1), Crop(shift=0.25).draw(300, stream(0))
    )
    seen = []
    for found in cropped:
        seen += [move for move, expected in moves.items() if torch.equal(found, expected[0])]
    assert len(seen) == 300
    assert set(seen) == set(moves)


@given(st.integers(1, 40), st.floats(0, 1))
def test_the_ends_of_the_range_move_a_crop_furthest(side, shift):
    image, reach = pictures(1, side, 1), round(shift * side)
    for place, down in ((0.0, -reach), (0.5, 0), (BELOW_ONE, reach)):
        found = Crop(shift=shift).apply(image, row(place, 0.5))
        assert torch.equal(found, moved(image, down, 0))


def test_a_flip_swaps_left_and_right_and_undoes_itself():
    operation, images = Flip(probability=1), pictures()
    parameters = operation.draw(6, stream(0))
    once = operation.apply(images, parameters)
    assert torch.equal(once, images.flip(-1))
    assert torch.equal(operation.apply(once, parameters), images)


def distance_within(side, place):
    """Of each pixel's centre from a place in [0, 1)."""
    return (torch.arange(side) + 0.5 - side * place).abs()


@given(st.floats(0, 1), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_a_cutout_blanks_one_square_and_nothing_else(side, height, width, seed):
    operation, images = Cutout(side=side), pictures(3, height, width)
    parameters = operation.draw(3, stream(seed))
    half = round(side * height) / 2
    rows = torch.stack([distance_within(height, place) < half for place in parameters[:, 0]])
    columns = torch.stack([distance_within(width, place) < half for place in parameters[:, 1]])
    square = (rows[:, :, None] & columns[:, None, :])[:, None]
    assert torch.equal(operation.apply(images, parameters), images * ~square)


@pytest.mark.parametrize("place", [0.25, 0.4999, 0.5, 0.7])
@pytest.mark.parametrize("side", [0.25, 0.5])
def test_a_cutout_inside_of_the_image_has_the_size_asked_for(place, side):
    found = Cutout(side=side).apply(pictures(1, 20, 30), row(place, place))
    assert (found == 0).sum() == 3 * round(side * 20) ** 2


def literal_colour(image, brightness, saturation, contrast):
    """One image, pixel by pixel."""
    image = image + brightness
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            mean = sum(image[:, y, x]) / len(image)
            image[:, y, x] = mean + (image[:, y, x] - mean) * saturation
    mean = image.sum() / image.numel()
    return mean + (image - mean) * contrast


def test_colour_agrees_with_the_literal_form():
    images, parameters = pictures(), OPERATIONS["colour"].draw(6, stream(0))
    expected = [literal_colour(i, *p.double()) for i, p in zip(images, parameters, strict=True)]
    found = OPERATIONS["colour"].apply(images, parameters)
    torch.testing.assert_close(found, torch.stack(expected))


@given(st.floats(-2, 2), st.floats(0, 3), st.floats(0, 3))
def test_each_parameter_of_colour_keeps_what_it_should(brightness, saturation, contrast):
    image, apply = pictures(1), OPERATIONS["colour"].apply
    close = torch.testing.assert_close
    close(apply(image, row(0, 1, 1)), image)
    close(apply(image, row(brightness, 1, 1)), image + row(brightness).double())
    saturated = apply(image, row(0, saturation, 1))
    close(saturated.mean(1), image.mean(1))
    contrasted = apply(image, row(0, 1, contrast))
    close(contrasted.mean(), image.mean())
    close(contrasted.std(), image.std() * row(contrast).double().item())
    grey = image[:, :1]
    close(apply(grey, row(0, saturation, 1)), grey)


SLOPES = st.tuples(st.floats(-2, 2), st.floats(-2, 2))


@given(SLOPES, st.floats(-180, 180), st.integers(8, 13), st.integers(8, 13))
def test_a_rotated_ramp_is_the_ramp_of_the_rotated_slope(slope, degrees, height, width):
    angle = torch.tensor(degrees).double().deg2rad()
    cos, sin = angle.cos().item(), angle.sin().item()
    # Counter-clockwise, with y pointing down.
    turned = (cos * slope[0] + sin * slope[1], cos * slope[1] - sin * slope[0])
    found = Rotate(degrees=180).apply(ramps(height, width, [slope]), row(degrees))
    expected = ramps(height, width, [turned])
    # What stays inside of the image at any angle.
    y, x = ramps(height, width, [(0, 1), (1, 0)])[:, 0]
    kept = (y.square() + x.square()).sqrt() <= min(height, width) / 2 - 0.51
    torch.testing.assert_close(found[0, 0][kept], expected[0, 0][kept], atol=1e-4, rtol=0)


def test_a_quarter_turn_goes_counter_clockwise():
    images = pictures(2, 6, 6)
    found = Rotate(degrees=90).apply(images, row(90.0).expand(2, 1))
    torch.testing.assert_close(found, images.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_half_a_turn_keeps_an_oblong_image_whole():
    images = pictures(1)
    found = Rotate(degrees=180).apply(images, row(180.0))
    torch.testing.assert_close(found, images.flip(2, 3), atol=1e-4, rtol=0)


@given(SLOPES, st.floats(0.5, 2), st.floats(0.5, 2), st.integers(8, 13), st.integers(8, 13))
def test_a_scaled_ramp_is_less_steep_by_as_much(slope, taller, wider, height, width):
    found = Scale(factor=2).apply(ramps(height, width, [slope]), row(taller, wider))
    expected = ramps(height, width, [(slope[0] / wider, slope[1] / taller)])
    y, x = ramps(height, width, [(0, 1), (1, 0)])[:, 0].abs()
    kept = (y <= taller * (height - 1) / 2 - 0.01) & (x <= wider * (width - 1) / 2 - 0.01)
    torch.testing.assert_close(found[0, 0][kept], expected[0, 0][kept], atol=1e-4, rtol=0)
    outside = (y > taller * (height + 1) / 2 + 0.01) | (x > wider * (width + 1) / 2 + 0.01)
    assert not found[0, 0][outside].any()


def test_operations_of_batches_are_equally_likely():
    chosen = [ALL.draw(2, stream(0, step)).operation for step in range(1200)]
    for operation in OPERATIONS.values():
        assert 120 < chosen.count(operation) < 280


def test_another_number_of_images_than_parameters_is_refused():
    with pytest.raises(ValueError, match="6 images, but parameters for 1: draw"):
        ALL.draw(1, stream(0))(pictures())


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Crop, {"shift": 1.1}, "crop.shift is 1.1: give 0 to 1"),
        (Crop, {"shift": -0.1}, "crop.shift is -0.1: give 0 to 1"),
        (Rotate, {"degrees": -15}, "rotate.degrees is -15: give 0 to 180"),
        (Rotate, {"degrees": 181}, "rotate.degrees is 181: give 0 to 180"),
        (Scale, {"factor": 0.8}, "scale.factor is 0.8: give 1 or more, finite"),
        (Scale, {"factor": torch.inf}, "scale.factor is inf: give 1 or more, finite"),
        (Flip, {"probability": 2}, "flip.probability is 2: give 0 to 1"),
        (Flip, {"probability": torch.nan}, "flip.probability is nan: give 0 to 1"),
        (Cutout, {"side": 3}, "cutout.side is 3: give 0 to 1"),
        (
            Colour,
            {"brightness": 0.5, "saturation": -2, "contrast": 0.5},
            "colour.saturation is -2: give 0 or more, finite",
        ),
    ],
)
def test_bad_settings_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


CONFIGURED = {
    "none": [],
    "cwx": ["crop", "rotate", "scale", "flip"],
    "shift_flip": ["chain"],
    "dsa": ["colour", "crop", "cutout", "flip", "scale", "rotate"],
}


def test_each_configuration_is_listed_here():
    assert {file.stem for file in AUGMENT_CONFIGS.glob("*.yaml")} == set(CONFIGURED)


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_configuration_names_its_operations(name):
    strategy = instantiate(OmegaConf.load(AUGMENT_CONFIGS / f"{name}.yaml"), _convert_="all")
    assert list(strategy.operations) == CONFIGURED[name]
    for key, operation in strategy.operations.items():
        assert type(operation) is getattr(augmentation_module, key.capitalize())
    augmentation = strategy.draw(6, stream(0))
    assert isinstance(augmentation, Augmentation)
    assert augmentation(pictures()).shape == pictures().shape


def test_a_chain_applies_its_operations_in_sequence():
    scale, flip = OPERATIONS["scale"], OPERATIONS["flip"]
    parameters = OPERATIONS["chain"].draw(6, stream(1))
    by_scale = scale.draw(6, stream(0)).shape[1]
    expected = flip.apply(
        scale.apply(pictures(), parameters[:, :by_scale]), parameters[:, by_scale:]
    )
    assert torch.equal(OPERATIONS["chain"].apply(pictures(), parameters), expected)
    assert not torch.equal(expected, scale.apply(pictures(), parameters[:, :by_scale]))
