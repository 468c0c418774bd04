"""Figures of images: whole pixels, texts that fit, outlines, captions and frames."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cwx.explanations.drawing import Tile, enlarge, highlight, mosaic, sheet, tiles
from cwx.explanations.images import Explanations
from cwx.explanations.text_fitting import fit_text, shorten
from cwx.functional.images import Normalization


def test_high_values_have_an_outline_and_the_image_keeps_its_pixels():
    """An image of 2x2 pixels is shown with 96x96; the outline lies around the high half."""
    image = torch.tensor([[[0.5, 1.0], [0.2, 0.8]]])
    values = torch.tensor([[4.0, -4.0], [4.0, -4.0]])
    shown = highlight(image, values, 0.5)
    enlarged = image.repeat_interleave(48, 1).repeat_interleave(48, 2).expand(3, -1, -1)
    assert shown.shape == (3, 96, 96)
    changed = (shown != enlarged).any(0)
    # The resized values reach half of the maximum between the centres of the columns.
    columns = changed.nonzero()[:, 1].unique().tolist()
    assert columns == [36, 37]
    yellow = shown[:, 0, 36]
    assert yellow.tolist() == pytest.approx([1, 0.9, 0])
    assert not shown[:, :, 37].any()


@pytest.mark.parametrize("values", [torch.zeros(2, 2), -torch.ones(2, 2)])
def test_without_high_values_there_is_no_outline(values):
    image = torch.rand(3, 2, 2)
    shown = highlight(image, values, 0.5)
    assert torch.equal(shown, image.repeat_interleave(48, 1).repeat_interleave(48, 2))


def test_a_large_image_is_reduced_to_the_tile_before_its_outline():
    assert highlight(torch.rand(3, 224, 112), torch.rand(224, 112), 0.9).shape == (3, 75, 38)


def is_framed(axes):
    return {spine.get_visible() for spine in axes.spines.values()} == {True}


def test_rows_have_names_tiles_captions_and_frames():
    image = torch.rand(1, 4, 4)
    rows = [
        ("first $x", [Tile(image, "a $1", framed=False), Tile(image, "b", framed=True)]),
        ("second", [Tile(image, "c", framed=False)]),
    ]
    figure = tiles(rows)
    assert [text.get_text() for text in figure.texts] == ["first $x", "second"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["a $1", "b", "c"]
    assert [is_framed(axes) for axes in figure.axes] == [False, True, False]
    (first, second, third) = (axes.get_position() for axes in figure.axes)
    assert first.y0 == second.y0 > third.y1
    assert second.x0 > first.x1
    assert all(0 < edge < 1 for box in (first, second, third) for edge in (*box.p0, *box.p1))
    figure.canvas.draw()


@pytest.mark.parametrize("caption", ["automobile → airplane", "on black: automobile"])
def test_captions_of_two_names_are_whole(caption):
    figure = tiles([("x", [Tile(torch.rand(3, 32, 32), caption, framed=True)] * 2)])
    # Draws it, which places the captions.
    pixels_of(figure)
    first, second = figure.axes
    assert first.get_xlabel().split() == caption.split()
    left, right = (axes.xaxis.label.get_window_extent() for axes in (first, second))
    assert left.x1 <= right.x0
    assert left.y0 >= 0


def pixels_of(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize(
    ("shape", "size"),
    {
        (3, 32, 32): (64, 64),
        (1, 8, 8): (64, 64),
        (1, 28, 28): (56, 56),
        (3, 20, 33): (20, 33),
        (3, 64, 64): (64, 64),
        (3, 80, 80): (80, 80),
        (1, 100, 50): (50, 25),
        (3, 224, 224): (75, 75),
    }.items(),
)
def test_a_pixel_of_an_image_is_a_square_of_whole_pixels(shape, size):
    """Three columns of widths that are no multiple of anything, drawn at their exact place."""
    counts = {"first source": 5, "b": 1, "activation maximisation": 3}
    columns = {title: torch.rand(2 * n, *shape) for title, n in counts.items()}
    labels = {title: torch.arange(2).repeat_interleave(n) for title, n in counts.items()}
    for figure in (
        sheet(columns, labels, ["automobile", "b"]),
        tiles([(t, [Tile(i, "c", framed=False) for i in rows]) for t, rows in columns.items()]),
    ):
        drawn = pixels_of(figure)
        for axes in figure.axes:
            image = np.asarray(axes.images[0].get_array())
            left, bottom, right, top = (round(e) for e in axes.get_window_extent().extents)
            box = drawn[len(drawn) - top : len(drawn) - bottom, left:right]
            factor = len(box) // len(image)
            assert np.array_equal(box, enlarge(image, factor))
    extents = sheet(columns, labels, ["a", "b"]).axes[0].get_window_extent()
    assert (round(extents.height), round(extents.width)) == size


def test_large_images_are_reduced_to_means_of_squares():
    image = (
        torch.arange(16.0).view(1, 1, 4, 4).repeat_interleave(50, 2).repeat_interleave(50, 3) / 15
    )
    figure = sheet({"a": image}, {"a": torch.zeros(1).long()}, ["a"])
    shown = np.asarray(figure.axes[0].images[0].get_array())[..., 0]
    assert shown.shape == (67, 67)
    assert (shown[0, 0], shown[-1, -1]) == (0, 255)


LONG = "Speed limit (20 km/h) for vehicles above 3.5 t, at night and in wet weather"


@pytest.mark.parametrize("title", ["cat", LONG, "W" * 60, "a\n$b$", "é" * 200, " "])
def test_no_text_is_clipped_or_lies_on_an_image_or_on_another_text(title):
    images, labels = torch.rand(2, 1, 4, 4), torch.arange(2)
    columns = dict.fromkeys((title, f"{title} 2", "b"), images)
    figure = sheet(columns, dict.fromkeys(columns, labels), [title, "short"])
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text().strip()]
    for box in boxes:
        assert box.x0 >= 0 <= box.y0
        assert box.x1 <= width
        assert box.y1 <= height
    drawn = boxes + [axes.get_window_extent() for axes in figure.axes]
    overlaps = [(a, b) for n, a in enumerate(drawn) for b in drawn[:n] if a.overlaps(b)]
    assert not overlaps


def test_a_long_name_is_wrapped_and_then_shortened():
    fitted = [fit_text(text, 190, 128, max_lines=2) for text in ("cat", LONG[:40], LONG)]
    assert [f.lines.count("\n") for f in fitted] == [0, 1, 1]
    assert [f.points for f in fitted] == [9, 9, 7]
    words = fitted[1].lines.replace("\n", " ")
    assert words == " ".join(LONG[:40].split())
    assert fitted[2].lines.endswith("…")
    assert all(f.width <= 190 for f in fitted)
    narrow = fit_text("a wide word", 1, 128, max_lines=1)
    assert narrow.lines.endswith("…")


def test_a_mosaic_has_a_row_per_class_and_enlarges_by_a_whole_factor():
    images = Explanations(torch.rand(3, 1, 12, 9), torch.tensor([0, 0, 1]))
    pixels = mosaic(images, Normalization(mean=[0.0], std=[1.0]))
    # Twice the size, with a frame of one pixel.
    assert pixels.shape == (2 * (24 + 2), 2 * (18 + 2), 3)
    inner = pixels[1:25, 1:19]
    assert np.array_equal(inner, enlarge(inner[::2, ::2], 2))
    assert (pixels[26:, 20:] == 255).all()


def test_ids_of_nouns_become_words():
    assert fit_text("n04486054→n03393912", 10_000, 100, max_lines=1).lines == (
        "triumphal arch→freight car"
    )
    assert shorten("n01443537") == "goldfish"
    # Two nouns have this word.
    cranes = {shorten(synset, 40) for synset in ("n02012849", "n03126707")}
    assert cranes == {"crane n02012849", "crane n03126707"}
    assert shorten("n99999999") == "n99999999"
