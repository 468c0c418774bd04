import numpy as np
import pytest
import torch
from PIL import Image
from support.image_writers import write_png, write_tiff
from support.pictures import write_image

from cwx.data import image_files
from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelRules


def read(files, channels=1, **rules):
    rules = PixelRules(setting="data.source.", **rules)
    return Reader(channels=channels, fit=None, rules=rules).read([(file, 0) for file in files])


def test_a_reader_refuses_images_of_different_sizes(tmp_path):
    write_image(tmp_path / "a.png", size=(3, 4))
    write_image(tmp_path / "b.png", size=(4, 3))
    reader = Reader(channels=3, fit=None, rules=PixelRules())
    reader.read([(tmp_path / "a.png", 0)])
    with pytest.raises(ValueError, match=r"a\.png is 3x4, .*b\.png is 4x3; set data\.source\.size"):
        reader.read([(tmp_path / "b.png", 0)])


def write_deep(file, level):
    write_png(file, np.array([[[0], [level]]]))
    return file


def test_a_set_of_deep_images_that_is_almost_black_is_refused(tmp_path):
    """Twelve bits, or a mask of zeros and ones, in files of sixteen."""
    dark = [write_deep(tmp_path / f"{level}.png", level) for level in (1, 255, 4095)]
    with pytest.raises(ValueError, match=r"1\.png with 16, are almost black.*source\.white_level"):
        read(dark)
    assert read(dark, white_level=4095).images[2, 0, 0].tolist() == [0, 255]
    assert read(dark, white_level=65535).images.max() == 15
    bright = write_deep(tmp_path / "bright.png", 30000)
    assert read([*dark, bright]).images[3, 0, 0].tolist() == [0, 117]


def test_dark_images_of_8_bits_are_read(tmp_path):
    write_image(tmp_path / "dark.png", mode="L", value=3)
    assert read([tmp_path / "dark.png"]).images.unique().tolist() == [3]


def test_dark_deep_colours_and_floats_are_refused_as_well(tmp_path):
    write_png(tmp_path / "colour.png", np.full((2, 2, 3), 4095))
    with pytest.raises(ValueError, match="almost black"):
        read([tmp_path / "colour.png"], channels=3)
    write_tiff(tmp_path / "f.tif", np.full((2, 2, 1), 0.01, np.float32), bits=32, kind=3)
    with pytest.raises(ValueError, match="with 32, are almost black"):
        read([tmp_path / "f.tif"])


def test_files_with_several_frames_are_counted_in_the_log(tmp_path, caplog):
    first, second = (Image.new("L", (4, 4), level) for level in (10, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    first.save(tmp_path / "b.tif", save_all=True, append_images=[second])
    first.save(tmp_path / "c.png")
    images = read([tmp_path / name for name in ("c.png", "a.gif", "b.tif")]).images
    assert images.unique().tolist() == [10]
    assert "2 files have several frames or pages, such as " in caplog.text
    assert "a.gif: only the first is read" in caplog.text


def test_more_images_than_memory_are_refused(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", size=(512, 1024))

    def full(*_, **__):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(image_files.torch, "empty", full)
    with pytest.raises(ValueError, match=r"2 images of 3x1024x512 need 0\.0 GiB of memory, more"):
        read([tmp_path / "a.png"] * 2, channels=3)


def test_bytes_have_the_shape_of_the_channels(tmp_path):
    write_image(tmp_path / "a.png", size=(3, 2), value=7)
    assert read([tmp_path / "a.png"], channels=3).images[0, :, 0, 0].tolist() == [7, 0, 255]
    assert read([tmp_path / "a.png"]).images.shape == (1, 1, 2, 3)
    assert read([tmp_path / "a.png"]).images.dtype == torch.uint8
