import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from support.paths import ROOT
from torchvision.transforms import InterpolationMode, functional

from cwx.data import resizing
from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelRules
from cwx.data.resizing import INTERPOLATIONS, MAX_SIDE, crop_to, fill, resampling, stretch_to


@pytest.fixture
def halves(tmp_path):
    """8x4 pixels: a red left half, a blue right half with a green last column."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4, 0] = pixels[:, 4:7, 2] = pixels[:, 7, 1] = 255
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    return tmp_path / "halves.png"


def read(file, fit):
    return Reader(channels=3, fit=fit, rules=PixelRules()).read([(file, 2)])


def test_cropping_keeps_the_centre_and_the_aspect_ratio(halves):
    images = read(halves, crop_to(4, interpolation="bicubic"))
    assert images.images.shape == (1, 3, 4, 4)
    assert images.images[0, :, 0].T.tolist() == [[255, 0, 0]] * 2 + [[0, 0, 255]] * 2
    assert images.labels.tolist() == [2]


def test_a_larger_resize_crops_more(halves):
    images = read(halves, crop_to(2, resize=4, interpolation="bicubic")).images[0, :, 0]
    assert images.T.tolist() == [[255, 0, 0], [0, 0, 255]]
    same, default = (crop_to(4, resize, interpolation="bicubic") for resize in (4, None))
    assert torch.equal(read(halves, same).images, read(halves, default).images)


def test_stretching_crops_nothing(halves):
    images = read(halves, stretch_to(2, 2, interpolation="bicubic")).images
    assert images.shape == (1, 3, 2, 2)
    red, blue = images[0, :, 0].T.tolist()
    assert red[0] > 200
    # The green edge is not cropped.
    assert blue[1] > 20
    assert blue[2] > 150


@pytest.mark.parametrize(
    ("height", "width", "columns"),
    [
        # The middle four columns, the middle two rows, and all of them at half the size.
        (4, 4, slice(2, 6)),
        (2, 8, slice(0, 8)),
        (1, 2, None),
    ],
)
def test_filling_covers_the_size_and_keeps_the_centre(halves, height, width, columns):
    images = read(halves, fill(height, width, interpolation="bicubic")).images
    assert images.shape == (1, 3, height, width)
    if columns:
        whole = read(halves, None).images
        assert torch.equal(images, whole[:, :, :height, columns])
    else:
        assert images[0, 0, 0, 0] > 200
        assert images[0, 2, 0, 1] > 100


def test_filling_enlarges_small_images(halves):
    assert read(halves, fill(9, 8, interpolation="bicubic")).images.shape == (1, 3, 9, 8)


def test_without_resizing_pixels_do_not_change(halves):
    pixels = read(halves, None).images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels, np.asarray(Image.open(halves)))


SIZES = [(640, 427), (427, 640), (500, 333), (97, 1500), (23, 17), (224, 224), (257, 256)]


@pytest.fixture(scope="module")
def photograph():
    """A real photograph, as one of the documentation's figures holds."""
    with Image.open(ROOT / "docs/trace.png") as image:
        return image.convert("RGB").crop((0, 0, 700, 700))


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("resize", "side"), [(256, 224), (232, 224), (64, 64), (35, 32)])
def test_crops_equal_torchvisions_transform(photograph, size, resize, side, name):
    image = photograph.resize(size)
    expected = functional.resize(image, [resize], InterpolationMode(name))
    expected = functional.center_crop(expected, [side])
    actual = crop_to(side, resize, interpolation=name)(image)
    assert np.array_equal(np.asarray(actual), np.asarray(expected))


# The other two filters jump at the edges of pixels: a rounding error may choose another pixel.
@pytest.mark.parametrize("name", ["bilinear", "hamming", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [*SIZES, (1, 3000), (3000, 1)])
def test_cropping_before_resizing_gives_the_same_pixels(photograph, size, name, monkeypatch):
    image = photograph.resize(size)
    fits = [crop_to(16, 20, interpolation=name), fill(20, 30, interpolation=name)]
    expected = [np.asarray(fit(image)).astype(int) for fit in fits]
    monkeypatch.setattr(resizing, "_MAX_RESIZED", 0)
    for fit, pixels in zip(fits, expected, strict=True):
        assert np.abs(np.asarray(fit(image)).astype(int) - pixels).max() <= 1


def test_the_default_is_that_of_torchvisions_weights(photograph):
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    preset = weights.transforms()
    fit = crop_to(preset.crop_size[0], preset.resize_size[0], interpolation=None)
    image = photograph.resize((640, 427))
    pixels = torch.from_numpy(np.asarray(fit(image)).copy()).permute(2, 0, 1).float() / 255
    normalised = functional.normalize(pixels, preset.mean, preset.std)
    assert torch.equal(normalised, preset(image))
    assert resampling(None) == resampling("bilinear")


@pytest.mark.parametrize("name", ["cubic", "", "BILINEAR"])
def test_an_unknown_interpolation_is_refused(name):
    message = "data.source.interpolation is .* one of nearest, box, bilinear, hamming, bicubic"
    with pytest.raises(ValueError, match=message):
        crop_to(4, interpolation=name)


@pytest.mark.parametrize("side", [0, -1, MAX_SIDE + 1, 10**12])
def test_sides_that_no_image_has_are_refused(side):
    with pytest.raises(ValueError, match=rf"data\.source\.size is {side}: give"):
        crop_to(side, interpolation=None)
    if side > 0:
        with pytest.raises(ValueError, match=rf"data\.source\.resize is {side}: give at most 4096"):
            crop_to(4, side, interpolation=None)
