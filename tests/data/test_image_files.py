import numpy as np
import pytest
import torch
from PIL import Image
from support.pictures import write_image

from cwx.data.image_files import Reader, crop_to, fill, stretch_to


@pytest.fixture
def halves(tmp_path):
    """8x4 pixels: a red left half, a blue right half with a green last column."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4, 0] = pixels[:, 4:7, 2] = pixels[:, 7, 1] = 255
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    return tmp_path / "halves.png"


def read(file, fit):
    return Reader(channels=3, fit=fit).read([(file, 2)])


def test_cropping_keeps_the_centre_and_the_aspect_ratio(halves):
    images = read(halves, crop_to(4))
    assert images.images.shape == (1, 3, 4, 4)
    assert images.images[0, :, 0].T.tolist() == [[255, 0, 0]] * 2 + [[0, 0, 255]] * 2
    assert images.labels.tolist() == [2]


def test_a_larger_resize_crops_more(halves):
    images = read(halves, crop_to(2, resize=4)).images[0, :, 0]
    assert images.T.tolist() == [[255, 0, 0], [0, 0, 255]]
    assert torch.equal(read(halves, crop_to(4, 4)).images, read(halves, crop_to(4)).images)


def test_stretching_crops_nothing(halves):
    images = read(halves, stretch_to(2)).images
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
    images = read(halves, fill(height, width)).images
    assert images.shape == (1, 3, height, width)
    if columns:
        whole = read(halves, None).images
        assert torch.equal(images, whole[:, :, :height, columns])
    else:
        assert images[0, 0, 0, 0] > 200
        assert images[0, 2, 0, 1] > 100


def test_filling_enlarges_small_images(halves):
    assert read(halves, fill(9, 8)).images.shape == (1, 3, 9, 8)


def test_without_resizing_pixels_do_not_change(halves):
    pixels = read(halves, None).images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels, np.asarray(Image.open(halves)))


def test_a_reader_refuses_images_of_different_sizes(tmp_path):
    write_image(tmp_path / "a.png", size=(3, 4))
    write_image(tmp_path / "b.png", size=(4, 3))
    reader = Reader(channels=3, fit=None)
    reader.read([(tmp_path / "a.png", 0)])
    with pytest.raises(ValueError, match=r"a\.png is 3x4, .*b\.png is 4x3; set data\.source\.size"):
        reader.read([(tmp_path / "b.png", 0)])


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", size=(20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(ValueError, match="decompression bomb"):
        read(tmp_path / "a.png", None)


@pytest.mark.parametrize("fit", [crop_to, stretch_to])
def test_a_side_of_0_pixels_is_refused(fit):
    with pytest.raises(ValueError, match=r"data\.source\.size is 0"):
        fit(0)
