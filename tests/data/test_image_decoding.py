import io
import os
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.image_writers import write_png, write_tiff

from cwx.data import image_decoding
from cwx.data.image_decoding import decode, is_grey_file
from cwx.data.image_formats import FORMATS
from cwx.data.pixel_conversion import PixelRules
from cwx.data.resizing import crop_to, fill, stretch_to

# Corners of four colours: every turn and mirroring gives another picture.
CORNERS = np.zeros((16, 32, 3), np.uint8)
CORNERS[:8, :16], CORNERS[:8, 16:], CORNERS[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp"}


def read(file, mode="RGB", fit=None, **rules):
    return decode(file, mode=mode, rules=PixelRules(**rules), fit=fit)


def pixels(file, **settings):
    return np.asarray(read(file, **settings).image).astype(int)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", SUFFIXES)
def test_every_orientation_is_applied_in_every_format(tmp_path, file_format, orientation, mode):
    if file_format == "JPEG" and mode in ("RGBA", "P"):
        mode = "CMYK"
    image = Image.fromarray(CORNERS).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"image{SUFFIXES[file_format]}"
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    image.save(file, file_format, exif=exif, **options.get(file_format, {}))
    # The definition of TIFF 6: where row 0 and column 0 of the file are shown.
    upright = np.asarray(image.convert("RGB")).astype(int)
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1] if orientation in (2, 3) else upright[::-1]
    if orientation in (3, 4):
        upright = upright[::-1]
    if orientation in (7, 8):
        upright = upright[:, ::-1]
    if orientation >= 5:
        upright = upright.transpose(1, 0, 2)
    result = pixels(file)
    assert result.shape == upright.shape
    assert np.abs(result - upright).max() <= 4
    if mode in ("RGB", "L") and file_format != "TIFF":
        with Image.open(file) as opened:
            reference = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).astype(int)
        assert np.array_equal(result, reference)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_compressed_tiff_is_turned_once(tmp_path, compression, deep):
    grey = CORNERS.sum(-1).clip(0, 255).astype(np.uint8)
    grey[0, 0] = 77
    image = Image.fromarray(grey.astype(np.uint16) * 257 if deep else grey)
    file = tmp_path / "image.tif"
    image.save(file, compression=compression, tiffinfo={0x0112: 6})
    assert np.array_equal(pixels(file, mode="L"), np.rot90(grey, -1))


def test_the_orientation_of_deep_pixels_is_applied(tmp_path):
    exif = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, 6) + bytes(4)
    grey = np.array([[0, 50], [100, 150], [200, 250]])
    write_png(tmp_path / "image.png", grey[..., None] * 257, exif=exif)
    assert np.array_equal(pixels(tmp_path / "image.png", mode="L"), np.rot90(grey, -1))


def test_crops_are_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(CORNERS).save(tmp_path / "image.png", exif=exif)
    result = read(tmp_path / "image.png", fit=fill(32, 16, interpolation="nearest"))
    assert result.image.size == (16, 32)
    assert np.array_equal(np.asarray(result.image), np.rot90(CORNERS, -1))


FOREIGN = {
    "EPS .PostScript.": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    ),
    "AVIF": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1" + bytes(64),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "DDS": b"DDS " + struct.pack("<I", 124) + bytes(200),
    "QOI": b"qoif" + struct.pack(">IIBB", 4, 4, 3, 0) + bytes(64),
    "BLP": b"BLP2" + bytes(300),
    "PSD": b"8BPS\0\1" + bytes(64),
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(64),
    "FLI": b"\0\0\0\0\x11\xaf" + bytes(200),
    "ICO": b"\0\0\1\0\1\0" + bytes(64),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64),
    "PDF": b"%PDF-1.4\n",
    "SVG": b"\xef\xbb\xbf<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a web page": b"<!DOCTYPE html><html>Not found</html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a NumPy array": b"\x93NUMPY\1\0",
    "empty": b"",
    "damaged or of another format": b"hello",
    "a damaged PNG": b"\x89PNG\r\n\x1a\n" + bytes(9),
    "a damaged TIFF": b"II*\0" + bytes(64),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ""])
@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused_by_name(tmp_path, kind, suffix, monkeypatch):
    monkeypatch.setattr(os, "system", None)
    monkeypatch.setattr("subprocess.check_call", None)
    monkeypatch.setattr("subprocess.Popen", None)
    file = tmp_path / f"image{suffix}"
    file.write_bytes(FOREIGN[kind])
    for use in (read, is_grey_file):
        with pytest.raises(ValueError, match=f"cannot be read as an image .*{kind}.*: replace or"):
            use(file)


def test_every_format_of_pillow_that_is_not_listed_is_refused(tmp_path):
    """SPIDER and others have no signature: no reader outside the list may even try."""
    Image.init()
    image = Image.fromarray(CORNERS)
    for name in sorted(set(Image.SAVE) - {*FORMATS, "MPO", "DIB"}):
        content = io.BytesIO()
        try:
            image.convert("F" if name == "SPIDER" else "RGB").save(content, name)
        except (OSError, ValueError, KeyError, AttributeError, RuntimeError):
            continue
        (tmp_path / "image.png").write_bytes(content.getvalue())
        with pytest.raises(ValueError, match="cannot be read as an image"):
            read(tmp_path / "image.png")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "broken link", "missing"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "image.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "broken link":
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read as an image .*replace or remove it"):
        read(path)


def frames(size=(8, 8)):
    return [Image.new("RGB", size, (level, 0, 0)) for level in (10, 120, 250)]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_the_first_of_several_frames_is_read_and_the_others_are_reported(tmp_path, suffix):
    first, *others = frames()
    file = tmp_path / f"image{suffix}"
    options = {".webp": {"lossless": True}}.get(suffix, {})
    first.save(file, save_all=True, append_images=others, **options)
    decoded = read(file)
    assert decoded.has_frames
    assert abs(np.asarray(decoded.image)[0, 0].astype(int) - [10, 0, 0]).max() <= 1
    first.save(file, **options)
    assert not read(file).has_frames


def test_the_second_picture_of_a_camera_is_no_frame(tmp_path):
    first, *others = frames()
    first.save(tmp_path / "image.jpg", "MPO", save_all=True, append_images=others)
    assert not read(tmp_path / "image.jpg").has_frames


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("size", [(1, 1_000_000), (1_000_000, 1), (3, 700_000)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_very_long_image_takes_little_memory(tmp_path, size, mode):
    Image.new("L", size, 100).convert(mode).save(tmp_path / "long.png")
    before = peak_megabytes()
    for fit in (
        crop_to(16, interpolation="bicubic"),
        crop_to(224, 256, interpolation=None),
        stretch_to(16, 16, interpolation="lanczos"),
        fill(32, 16, interpolation=None),
    ):
        assert np.unique(pixels(tmp_path / "long.png", fit=fit)).tolist() == [100]
    assert peak_megabytes() - before < 150


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", ".png"),
        ("RGB", ".jpg"),
        ("L", ".tif"),
        ("1", ".png"),
        ("P", ".gif"),
        ("I;16", ".png"),
    ],
)
def test_a_large_photograph_is_reduced(tmp_path, mode, suffix):
    small = Image.fromarray(CORNERS).convert(mode if mode in ("RGB", "L", "P") else "L")
    large = small.resize((10_000, 10_000), Image.Resampling.NEAREST)
    if mode == "I;16":
        large = Image.fromarray(np.asarray(large).astype(np.uint16) * 257)
    large.convert(mode).save(tmp_path / f"large{suffix}")
    before = peak_megabytes()
    result = pixels(tmp_path / f"large{suffix}", fit=crop_to(16, interpolation=None))
    assert peak_megabytes() - before < 1000
    expected = np.asarray(small.convert("RGB").resize((16, 16), Image.Resampling.BOX)).astype(int)
    # Only the pixels beside the edges of the colours are averages.
    assert np.abs(result - expected)[2:6, 2:6].max() <= (140 if mode == "1" else 3)


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(image_decoding, "MAX_PIXELS", 40_000)
    monkeypatch.setattr(image_decoding, "_MAX_WHOLE", 2_000)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I", "F", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_reducing_a_large_image_keeps_what_it_shows(tmp_path, mode, orientation):
    corners = Image.fromarray(CORNERS).resize((200, 160), Image.Resampling.NEAREST)
    grey = np.asarray(corners.convert("L"))
    if mode in ("I;16", "I"):
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray((grey / 255).astype(np.float32))
    else:
        image = corners.convert(mode)
    file = tmp_path / ("image.pgm" if mode == "I" else "image.tif")
    image.save(file, **({} if mode == "I" else {"tiffinfo": {0x0112: orientation}}))
    result = pixels(file, fit=stretch_to(16, 16, interpolation="box"))
    upright = corners if orientation == 1 or mode == "I" else corners.rotate(-90, expand=True)
    is_grey = mode in ("L", "1", "LA", "I;16", "I", "F")
    expected = np.asarray(upright.convert("L" if is_grey else "RGB").convert("RGB"))
    middle = expected.astype(int)[:: len(expected) // 4, :: expected.shape[1] // 4]
    inner = result[[2, 13]][:, [2, 13]]
    assert np.abs(inner - middle[[0, 3]][:, [0, 3]]).max() <= (9 if mode == "1" else 6)


@pytest.mark.usefixtures("small_limits")
def test_a_transparent_colour_is_found_before_an_image_is_reduced(tmp_path):
    values = np.tile(np.array([[[9], [30]]], np.uint8), (160, 100, 1))
    write_png(tmp_path / "image.png", values, bits=8, transparent=(9,))
    fit = stretch_to(4, 4, interpolation="box")
    result = pixels(tmp_path / "image.png", fit=fit, background="black")
    assert np.abs(result - 15).max() <= 1


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize(
    ("size", "fit", "message"),
    [
        ((300, 300), crop_to(8, interpolation=None), "300 x 300 pixels, more than 40,000, and may"),
        ((40_001, 1), crop_to(8, interpolation=None), "40001 x 1 pixels, more than 40,000"),
        ((150, 150), None, "150 x 150 pixels, too many for the size of the images"),
        (
            (150, 150),
            crop_to(128, interpolation=None),
            "150 x 150 pixels, too many for the size",
        ),
    ],
)
def test_too_large_images_are_refused(tmp_path, size, fit, message):
    Image.new("L", size).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=f"large.png has {message}"):
        read(tmp_path / "large.png", fit=fit)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    write_png(tmp_path / "bomb.png", np.zeros((1, 1, 1), int), bits=8)
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    for side in (12_000, 30_000, 2**31 - 1):
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
        (tmp_path / "bomb.png").write_bytes(content)
        with pytest.raises(ValueError, match="decompression bomb"):
            read(tmp_path / "bomb.png", fit=crop_to(16, interpolation=None))


def refusal(file):
    """The message with which a file is refused; ``None`` if it is read."""
    try:
        read(file, fit=crop_to(4, interpolation=None))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damaged_files_are_refused_with_one_line(tmp_path, file_format):
    """A hundred mutations of each format: an image or a ValueError, never another error."""
    content = io.BytesIO()
    Image.fromarray(CORNERS).save(content, file_format)
    rng = np.random.default_rng(3)
    file = tmp_path / "image.png"
    for _ in range(100):
        damaged = bytearray(content.getvalue())
        for position in rng.integers(0, min(len(damaged), 400), rng.integers(1, 6)):
            damaged[position] = rng.integers(256)
        if rng.random() < 0.3:
            del damaged[rng.integers(len(damaged)) :]
        file.write_bytes(damaged)
        message = refusal(file)
        assert message is None or (str(file) in message and "\n" not in message)


def test_a_tiff_with_an_odd_directory_is_refused(tmp_path):
    write_tiff(tmp_path / "image.tif", np.zeros((4, 4, 1), np.uint8), bits=8)
    content = bytearray((tmp_path / "image.tif").read_bytes())
    # The directory points to itself.
    content[10 + 11 * 12 : 14 + 11 * 12] = struct.pack("<I", 8)
    (tmp_path / "image.tif").write_bytes(content)
    read(tmp_path / "image.tif")
