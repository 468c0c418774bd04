"""Figures of images: darkened pixels, captions, frames and row names."""

import torch

from cwx.explanations.drawing import Tile, highlight, sheet, tiles


def test_pixels_with_low_values_are_darkened():
    image = torch.tensor([[[0.5, 1.0], [0.2, 0.8]]])
    values = torch.tensor([[4.0, 2.0], [1.9, -3.0]])
    highlighted = highlight(image, values, 0.5)
    torch.testing.assert_close(highlighted, torch.tensor([[[0.5, 1.0], [0.06, 0.24]]]))
    torch.testing.assert_close(highlight(image, values, 1.0)[0, 0, 1], torch.tensor(0.3))
    torch.testing.assert_close(highlight(image, -values.abs(), 0.5), 0.3 * image)
    torch.testing.assert_close(highlight(image, 0 * values, 0.5), 0.3 * image)


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


def test_row_names_are_wrapped_to_two_lines():
    names = ["cat", "automobile → airplane", "x" * 60]
    images, labels = torch.rand(3, 1, 4, 4), torch.arange(3)
    figure = sheet({"all": images}, {"all": labels}, names)
    _, *rows = [text.get_text() for text in figure.texts]
    assert rows == ["cat", "automobile →\nairplane", "x" * 18 + "\n" + "x" * 17 + "…"]
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts[1:]]
    edge = figure.axes[0].get_window_extent().x0
    assert all(box.x0 >= 0 and box.x1 <= edge for box in boxes)
