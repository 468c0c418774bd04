"""Every mode and format gives the pixels of the 8-bit original, or is refused by name."""

import warnings

import numpy as np
import pytest
from PIL import Image
from support.image_writers import write_png, write_tiff

from cwx.data.image_decoding import decode, is_grey_file
from cwx.data.pixel_conversion import PixelRules

# Blocks of 4 pixels, of all levels: chroma subsampling and rounding stay small.
COLOUR = np.kron(
    np.random.default_rng(0).integers(0, 256, (4, 5, 3)), np.ones((4, 4, 1), int)
).astype(np.uint8)
GREY = COLOUR[..., :1]
SUFFIXES = {
    **{"PNG": ".png", "PPM": ".pnm", "TIFF": ".tif", "WEBP": ".webp"},
    **{"BMP": ".bmp", "JPEG": ".jpg", "GIF": ".gif"},
}
EXACT = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}


def pixels(file, mode="RGB", fit=None, **rules):
    rules = PixelRules(setting="data.source.", **rules)
    array = np.asarray(decode(file, mode=mode, rules=rules, fit=fit).image)
    return array.reshape(*array.shape[:2], -1).astype(int)


def largest_difference(array, expected):
    return np.abs(array - np.broadcast_to(expected, array.shape).astype(int)).max()


def deep(mode):
    """The grey original in a mode of more than 8 bits."""
    grey = GREY[..., 0]
    if mode == "F":
        return Image.fromarray((grey / 255).astype(np.float32))
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257)
    return Image.frombytes(mode, grey.shape[::-1], (grey.astype(mode_type(mode)) * 257).tobytes())


def mode_type(mode):
    return ">u2" if mode == "I;16B" else "<u2"


# Image, tolerance in levels, and the formats that Pillow writes without clipping the values.
MODES = {
    "1": (
        lambda: Image.fromarray(GREY[..., 0]).point(lambda v: 255 * (v > 127), "1"),
        0,
        "PNG PPM TIFF WEBP BMP JPEG GIF",
    ),
    "L": (lambda: Image.fromarray(GREY[..., 0]), 1, "PNG PPM TIFF WEBP BMP JPEG GIF"),
    "LA": (lambda: Image.fromarray(GREY[..., 0]).convert("LA"), 1, "PNG TIFF WEBP GIF"),
    "I;16": (lambda: deep("I;16"), 0, "PNG PPM TIFF"),
    "I;16B": (lambda: deep("I;16B"), 0, "PNG TIFF"),
    "I": (lambda: deep("I"), 0, "PNG PPM TIFF"),
    "F": (lambda: deep("F"), 0, "PPM TIFF"),
    "RGB": (lambda: Image.fromarray(COLOUR), 3, "PNG PPM TIFF WEBP BMP JPEG GIF"),
    "RGBA": (lambda: Image.fromarray(COLOUR).convert("RGBA"), 0, "PNG PPM TIFF WEBP BMP GIF"),
    "P": (
        lambda: Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE),
        0,
        "PNG TIFF WEBP BMP GIF",
    ),
    "CMYK": (lambda: Image.fromarray(COLOUR).convert("CMYK"), 3, "TIFF WEBP JPEG"),
    "YCbCr": (lambda: Image.fromarray(COLOUR).convert("YCbCr"), 4, "WEBP JPEG"),
    "LAB": (lambda: Image.new("LAB", (20, 16), (100, 50, 50)), 0, "TIFF"),
}
REFUSED = {("LAB", "TIFF"): "mode LAB", ("I", "TIFF"): "32 bits .* set data.source.white_level"}


@pytest.mark.parametrize(
    ("mode", "file_format"), [(mode, f) for mode in MODES for f in MODES[mode][2].split()]
)
def test_every_mode_in_every_format_keeps_its_values(tmp_path, mode, file_format):
    image, tolerance = MODES[mode][0](), MODES[mode][1]
    file = tmp_path / f"image{SUFFIXES[file_format]}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        image.save(file, file_format, **EXACT.get(file_format, {}))
    if message := REFUSED.get((mode, file_format)):
        with pytest.raises(ValueError, match=f"image.tif has .*{message}"):
            pixels(file)
        return
    is_grey = mode in ("1", "L", "LA", "I;16", "I;16B", "I", "F")
    expected = (GREY > 127) * 255 if mode == "1" else GREY if is_grey else COLOUR
    assert largest_difference(pixels(file), expected) <= tolerance
    if is_grey:
        assert largest_difference(pixels(file, "L"), expected) <= tolerance
    # WebP stores colours alone.
    assert is_grey_file(file) == (is_grey and file_format != "WEBP")


@pytest.mark.parametrize(
    ("write", "channels"),
    [*((write_png, n) for n in (1, 2, 3, 4)), *((write_tiff, n) for n in (1, 3, 4))],
)
def test_sixteen_bits_keep_their_values(tmp_path, write, channels):
    source = np.concatenate([COLOUR, np.full_like(GREY, 255)], -1)
    samples = source[..., :channels].astype(np.uint16) * 257
    if channels == 2:
        samples[..., 1] = 65535
    write(
        tmp_path / "deep",
        samples,
        **({"alpha": 2} if write is write_tiff and channels == 4 else {}),
    )
    assert largest_difference(pixels(tmp_path / "deep"), COLOUR if channels > 2 else GREY) == 0
    assert is_grey_file(tmp_path / "deep") == (channels < 3)


def test_pixels_of_a_tiff_where_0_is_white_are_inverted(tmp_path):
    for bits, values in ((8, GREY), (16, GREY.astype(np.uint16) * 257)):
        write_tiff(tmp_path / "inverted.tif", values, bits=bits, photometric=0)
        assert largest_difference(pixels(tmp_path / "inverted.tif"), 255 - GREY) == 0
    floats = (GREY / 255).astype(np.float32)
    write_tiff(tmp_path / "inverted.tif", floats, bits=32, photometric=0, kind=3)
    assert largest_difference(pixels(tmp_path / "inverted.tif"), 255 - GREY) == 0


def test_few_bits_fill_the_range(tmp_path):
    for bits, white in ((1, 1), (2, 3), (4, 15)):
        values = (GREY.astype(int) * white // 255).repeat(2, 1)
        write_png(tmp_path / "few.png", values, bits=bits)
        assert largest_difference(pixels(tmp_path / "few.png"), values * 255 // white) == 0
    write_tiff(tmp_path / "twelve.tif", GREY.astype(int) * 4095 // 255, bits=12)
    assert largest_difference(pixels(tmp_path / "twelve.tif"), GREY) <= 1


@pytest.mark.parametrize("maxval", [100, 1000, 4095, 65535])
@pytest.mark.parametrize("header", ["P5", "P2", "P6", "P3"])
def test_netpbm_states_its_white(tmp_path, header, maxval):
    source = GREY if header in ("P5", "P2") else COLOUR
    values = np.rint(source * (maxval / 255)).astype(int)
    if header in ("P5", "P6"):
        body = values.astype(">u2" if maxval > 255 else "u1").tobytes()
    else:
        body = " ".join(map(str, values.reshape(-1))).encode()
    file = tmp_path / "image.ppm"
    file.write_bytes(f"{header}\n20 16\n{maxval}\n".encode() + body)
    # A hundred levels are 2.55 bytes apart.
    assert largest_difference(pixels(file), source) <= (2 if maxval == 100 else 1)
    assert largest_difference(pixels(file, white_level=4095.0), source) <= 2


def half_transparent(mode):
    """Black left of the middle and transparent right of it, in a mode."""
    alpha = Image.fromarray(np.repeat([[255] * 10 + [0] * 10], 16, 0).astype(np.uint8))
    image = Image.new("RGBA", (20, 16))
    image.putalpha(alpha)
    if mode in ("LA", "RGBA", "PA"):
        return image.convert(mode), {}
    if mode == "P":
        palette = Image.fromarray(np.repeat([[0] * 10 + [1] * 10], 16, 0).astype(np.uint8), "L")
        palette = palette.convert("P")
        palette.putpalette([0, 0, 0, 1, 1, 1])
        return palette, {"transparency": 1}
    values = np.repeat([[0] * 10 + [7] * 10], 16, 0).astype(np.uint8)
    transparent = 7 if mode == "L" else (7, 7, 7)
    return Image.fromarray(values).convert(mode), {"transparency": transparent}


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *(("RGBA", suffix) for suffix in (".png", ".webp", ".tif", ".gif")),
        *(("LA", suffix) for suffix in (".png", ".webp", ".tif")),
        *(("P", ".png"), ("P", ".gif"), ("L", ".png"), ("RGB", ".png"), ("PA", ".tif")),
    ],
)
def test_transparent_pixels_stand_on_the_stated_background(tmp_path, mode, suffix):
    image, options = half_transparent(mode)
    file = tmp_path / f"image{suffix}"
    image.save(file, **options)
    with pytest.raises(ValueError, match=r"has transparent pixels: set data\.source\.background"):
        pixels(file)
    for background, level in (("white", 255), ("#808080", 128), ("black", 0)):
        result = pixels(file, background=background)
        assert largest_difference(result[:, :10], 0) <= 1
        assert largest_difference(result[:, 10:], level) == 0
    assert largest_difference(pixels(file, "L", background="white")[:, 10:], 255) == 0


@pytest.mark.parametrize(("bits", "white"), [(2, 3), (4, 15), (8, 255), (16, 65535)])
def test_the_transparent_grey_of_any_depth_is_recognised(tmp_path, bits, white):
    values = np.repeat([[0] * 8 + [2] * 8], 4, 0)[..., None]
    write_png(tmp_path / "grey.png", values, bits=bits, transparent=(2,))
    result = pixels(tmp_path / "grey.png", background="white", white_level=65535.0)
    assert result[0, :, 0].tolist() == [0] * 8 + [255] * 8


def test_a_transparent_colour_that_no_pixel_has_changes_nothing(tmp_path):
    write_png(tmp_path / "image.png", COLOUR, bits=8, transparent=(1, 2, 3))
    assert largest_difference(pixels(tmp_path / "image.png"), COLOUR) == 0


def test_half_transparent_pixels_are_mixed_with_the_background(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 51)).save(tmp_path / "image.png")
    assert np.unique(pixels(tmp_path / "image.png", background="white")).tolist() == [204]
    premultiplied = np.tile(np.array([100, 50, 0, 128], np.uint8), (4, 4, 1))
    write_tiff(tmp_path / "image.tif", premultiplied, bits=8, alpha=1)
    expected = np.array([100, 50, 0])
    assert largest_difference(pixels(tmp_path / "image.tif", background="black"), expected) <= 1


def write_floats(file, values):
    write_tiff(file, np.asarray(values, np.float32).reshape(1, -1, 1), bits=32, kind=3)


@pytest.mark.parametrize(
    ("values", "rules", "message"),
    [
        ([0.5, np.nan], {}, "pixels that are NaN or infinite"),
        ([0.5, np.inf], {"white_level": 1.0}, "pixels that are NaN or infinite"),
        ([0.5, -np.inf], {}, "pixels that are NaN or infinite"),
        ([0, 255], {}, "pixels in 0-255, where 0 is black and 1 is white: set .*white_level"),
        ([-0.5, 1], {}, "pixels in -0.5-1, where"),
        ([0, 300], {"white_level": 255}, "pixels in 0-300, where 0 is black and 255 is white"),
    ],
)
def test_floats_without_a_clear_meaning_are_refused(tmp_path, values, rules, message):
    write_floats(tmp_path / "floats.tif", values)
    with pytest.raises(ValueError, match=f"floats.tif has {message}"):
        pixels(tmp_path / "floats.tif", **rules)


def test_the_white_level_gives_deep_pixels_their_meaning(tmp_path):
    write_floats(tmp_path / "f.tif", [0, 100, 200])
    assert pixels(tmp_path / "f.tif", white_level=200)[0, :, 0].tolist() == [0, 128, 255]
    camera = np.array([[[0], [2048], [4095]]], np.uint16)
    write_tiff(tmp_path / "camera.tif", camera)
    assert pixels(tmp_path / "camera.tif", white_level=4095)[0, :, 0].tolist() == [0, 128, 255]
    write_tiff(tmp_path / "signed.tif", np.array([[[0], [10]]], np.int32), bits=32, kind=2)
    assert pixels(tmp_path / "signed.tif", white_level=10)[0, :, 0].tolist() == [0, 255]
    write_png(tmp_path / "mask.png", np.array([[[0], [1]]]))
    assert pixels(tmp_path / "mask.png", white_level=1)[0, :, 0].tolist() == [0, 255]


def test_lower_bits_that_pillow_does_not_give_are_not_needed(tmp_path):
    samples = COLOUR.astype(np.uint16)
    write_png(tmp_path / "image.png", samples)
    with pytest.raises(ValueError, match="16 bits per colour, whose white is 65535, not 4095"):
        pixels(tmp_path / "image.png", white_level=4095)
    write_png(tmp_path / "image.png", samples, transparent=(1, 2, 3))
    with pytest.raises(ValueError, match="16 bits per colour and a transparent one"):
        pixels(tmp_path / "image.png", background="white")


def test_a_cmyk_jpeg_that_does_not_name_its_inks_is_refused(tmp_path):
    file = tmp_path / "image.jpg"
    Image.fromarray(COLOUR).convert("CMYK").save(file, quality=100)
    content = file.read_bytes()
    start = content.index(b"Adobe") - 4
    assert content[start : start + 2] == b"\xff\xee"
    file.write_bytes(content[:start] + content[start + 16 :])
    with pytest.raises(ValueError, match="CMYK JPEG that does not say whether its inks"):
        pixels(file)


@pytest.mark.parametrize("background", ["", "colour", "#fff8", "#12", "transparent"])
def test_a_background_that_is_no_opaque_colour_is_refused(background):
    with pytest.raises(ValueError, match=r"^data\.source\.background is .*white, black or #808080"):
        PixelRules(background=background, setting="data.source.")


@pytest.mark.parametrize("level", [0, -1, float("nan"), float("inf")])
def test_a_white_level_that_is_no_level_is_refused(level):
    with pytest.raises(ValueError, match=r"^data\.source\.white_level is "):
        PixelRules(white_level=level, setting="data.source.")
