"""Parts of pages: which pictures fit, how lines are thinned, what numbers say."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.report.image_sources import Source
from cwx.report.inline_images import CROWD, LOSSLESS, SMALL, Allowance, allowance, encoded
from cwx.report.metric_cards import cards, said
from cwx.report.metric_groups import families
from cwx.report.render import address
from cwx.report.run import Run
from cwx.report.svg_charts import Line, drawn
from cwx.report.tables import of_rows
from cwx.report.training_curves import read_curves, thinned
from cwx.storage.quantities import duration, size


def source(labels, shape=(3, 4, 4), image=None):
    return Source(
        key="x", title="x", meaning="", labels=labels, shape=shape,
        show=lambda _: torch.rand(shape) if image is None else image,
    )  # fmt: skip


LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=30)
SIDES = st.sampled_from([4, 32, 63, 64, 200])


@given(
    st.lists(st.tuples(LABELS, SIDES), min_size=1, max_size=4),
    st.integers(1, 1_000_000),
    st.integers(1, 60),
    st.integers(1, 8) | st.none(),
)
def test_pictures_fit_and_every_class_has_one(sources, budget, count, most):
    shown = [source(labels, (3, side, side)) for labels, side in sources]
    allowed = allowance(shown, most=most, budget=budget, count=count)
    assert 1 <= allowed.per_class <= (most or 30)
    labels = {label for s in shown for label in s.labels}
    kept = {label for label in labels if allowed.before is None or label < allowed.before}
    assert kept
    taken = [
        (s, sum(min(len(p), allowed.per_class) for c, p in s.by_class().items() if c in kept))
        for s in shown
    ]
    number = sum(n for _, n in taken)
    assert number <= count or allowed.per_class == 1
    # Of six classes at most, one alone may be too many.
    assert number <= CROWD * count or len(kept) == 1 or number <= 2 * CROWD * count
    weight = sum(3 * (s.shape[1] / allowed.factor(s.shape)) ** 2 * n for s, n in taken)
    assert weight <= budget or all(s.shape[1] / allowed.factor(s.shape) < 2 * SMALL for s in shown)
    assert all(s.shape[1] / allowed.factor(s.shape) >= min(SMALL, s.shape[1]) for s in shown)
    everything = number == sum(len(s.labels) for s in shown)
    assert allowed.full == everything
    assert bool(allowed.note) == (allowed.shrink > 1 or not everything)
    if allowed.shrink > 1:
        # No smaller than needed.
        assert allowed.per_class == 1
        larger = replace(allowed, shrink=allowed.shrink - 1)
        assert sum(3 * (s.shape[1] / larger.factor(s.shape)) ** 2 * n for s, n in taken) > budget


def test_what_is_shown_is_what_is_allowed():
    labels = [0, 0, 0, 1, 1, 2, 3, 3]
    shown = source(labels, (3, 100, 64))
    found = encoded(shown, Allowance(2, 3, before=3, full=False), str)
    assert {name: len(pictures) for name, pictures in found.items()} == {"0": 2, "1": 2, "2": 1}
    assert (found["0"][0].width, found["0"][0].height) == (32, 50)


def test_a_small_picture_keeps_its_pixels_and_a_large_one_its_weight():
    small, large = torch.rand(3, 32, 32), torch.rand(3, 224, 224)
    allowed = allowance([source([0])])
    for image, kind, most in ((small, "png", 6000), (large, "jpeg", 4 * 224 * 224)):
        found = encoded(source([0], tuple(image.shape), image), allowed, str)
        (picture,) = found["0"]
        assert picture.uri.startswith(f"data:image/{kind};base64,")
        assert len(picture.uri) < most
    flat = torch.full((3, 224, 224), 0.5)
    (picture,) = encoded(source([0], (3, 224, 224), flat), allowed, str)["0"]
    assert picture.uri.startswith("data:image/png")
    assert len(picture.uri) < LOSSLESS


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_any_number_of_channels_can_be_shown(channels):
    allowed = allowance([source([0])])
    image = torch.full((channels, 4, 5), float("nan"))
    (picture,) = encoded(source([0], (channels, 4, 5), image), allowed, str)["0"]
    assert (picture.width, picture.height) == (5, 4)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=2000), st.integers(4, 300))
def test_thinned_lines_keep_their_order_and_their_peaks(values, most):
    points = list(enumerate(values))
    kept = thinned(points, most)
    assert len(kept) <= max(most, 4)
    assert set(kept) <= set(points)
    assert kept == sorted(kept)
    assert min(v for _, v in kept) == min(values)
    assert max(v for _, v in kept) == max(values)


def test_a_log_that_was_cut_while_it_was_written_is_read_up_to_there(tmp_path):
    folder = tmp_path / "logs" / "version_0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("step,a/x,b/y\n0,1,nan\n1,2,\n2,x,inf\n3,4\n4")
    (tmp_path / "logs" / "version_odd").mkdir()
    assert read_curves(tmp_path) == {"a/x": [(0, 1), (1, 2), (3, 4)]}


def test_numbers_are_said_in_words():
    metrics = {
        "corruption/effective_rate": 0.0,
        "discriminative/distill/expert": 0.9,
        "discriminative/distill/expert/margin": 3.0,
        "discriminative/distill-projected/expert": 0.8,
        "discriminative/real/expert": 0.4,
        "predictive_power/power/iscp/0.05": 0.3,
        "predictive_power/power/iscp/0.05/std": 0.1,
        "predictive_power/power/universal/8": 0.3,
        "fidelity/seen/ratio": 0.4,
        "fidelity/ratio": 0.5,
        "unheard/of": 1.0,
    }
    found = {f.title: [e.words for e in f.entries] for f in families(metrics, {"distill": "CWX"})}
    assert found == {
        "Fidelity ratio": ["networks it was fitted to", "a network never seen"],
        "Recognised as its class": ["CWX, explained", "real images, explained"],
        "Predictive power of patterns": ["5 % of pixels, iscp"],
        "Predictive power of perturbations": ["ε = 8/255, universal"],
    }


AUDITED = {
    "adversary/success/expert": 1.0,
    "adversarial_set/expert/clean_top1": 0.71,
    "adversarial_set/expert/top1": 0.01,
    "adversarial_set/fine_tuned/clean_top1": 0.63,
    "adversarial_set/fine_tuned/top1": 0.48,
    "adversarial_set/vgg16-unseen/top1": 0.5,
    "adversarial_set/fine_tuned/success": 0.05,
    "adversarial_set/distance": 725.8,
    "accuracy/expert/clean": 0.69,
    "accuracy/expert/clean/top5": 0.97,
    "accuracy/expert/fgs_1": 0.42,
    "accuracy/expert/fgs_1/top5": 0.93,
    "accuracy/fine_tuned/fgs_1": 0.54,
    "neurons/expert/lc": 0.33,
    "neurons/fine_tuned/lc": 0.29,
    "neurons/expert/high/cs2": 0.93,
    "representations/expert/r1": 1.31,
    "representations/fine_tuned/r1": 1.01,
    "representations/fine_tuned/left_out": 0.0,
    "adversarial_detection/expert/auc": 0.72,
    "traces/fine_tuned/adversarial/consistent": 0.25,
}


def test_networks_before_and_after_stand_side_by_side():
    found = {
        family.title: {label: own.entries for label in family.labels for own in [family.of(label)]}
        for family in families(AUDITED, {})
    }
    told = {
        title: {label: [(e.label, AUDITED[e.name]) for e in own] for label, own in rows.items()}
        for title, rows in found.items()
    }
    assert told == {
        "Accuracy": {"explained networks": [("top 1", 0.69), ("top 5", 0.97)]},
        "Accuracy on the adversarial images": {
            "explained networks": [("real, top 1", 0.71), ("adversarial, top 1", 0.01)],
            "fine-tuned networks": [("real, top 1", 0.63), ("adversarial, top 1", 0.48)],
            "vgg16, not attacked": [("adversarial, top 1", 0.5)],
        },
        "Taken for the target": {"fine-tuned networks": [("", 0.05)]},
        "Accuracy under attack": {"FGS 1": [("explained", 0.42), ("fine-tuned", 0.54)]},
        "Top-5 accuracy under attack": {"FGS 1": [("explained", 0.93)]},
        "What neurons respond to": {"LC": [("explained", 0.33), ("fine-tuned", 0.29)]},
        "Neurons of the highest LC": {"CS₂, the target": [("explained", 0.93)]},
        "Representations of adversarial images": {
            "r₁, what they show": [("explained", 1.31), ("fine-tuned", 1.01)],
        },
        "AdversarialSet images told apart": {"explained networks": [("", 0.72)]},
        "Evidence for single predictions": {
            "consistent, adversarial images": [("fine-tuned", 0.25)]
        },
    }


def test_how_an_ensemble_was_attacked_is_said_once():
    alone = families({"adversary/success/expert": 1.0}, {})
    assert [family.title for family in alone] == ["Attack of the ensemble"]


@pytest.mark.parametrize("fraction", [0.5, 1.5])
def test_bars_that_cannot_show_a_number_are_drawn_for_none_of_its_card(tmp_path, fraction):
    metrics = {"representations/expert/r1": fraction, "representations/expert/r2": 0.5}
    paper = {"representations/expert/r2": 0.76}
    run = Run(folder=tmp_path, status={}, metrics=metrics, paper=paper)
    (card,) = cards(run)
    (first,), (second,) = (readings for _, readings in card.rows)
    assert (first.text, second.text, second.paper) == (f"{fraction:.2f}", "0.50", "0.76")
    assert [first.fill, second.fill] == ([0.5, 0.5] if fraction < 1 else [None, None])


def test_what_does_not_fit_on_a_card_is_left_to_the_tables(tmp_path):
    evaluation_networks = [f"n{n}" for n in range(8)]
    metrics = {f"discriminative/{m}/{j}": 0.5 for m in "abcdefgh" for j in evaluation_networks}
    del metrics["discriminative/a/n1"]
    (card,) = cards(Run(folder=tmp_path, status={}, metrics=metrics))
    assert card.columns == ["n0", "n2", "n3", "n4", "n5", "n6"]
    assert [label for label, _ in card.rows] == list("abcdef")
    assert card.more == 63 - 36
    assert card.kind == "wide"


@pytest.mark.parametrize(
    ("value", "fraction", "expected"),
    [(0.98183, True, "98.2 %"), (1.0, True, "100 %"), (0.02739, True, "2.74 %"),
     (0.7871, False, "0.79"), (-0.14, False, "-0.14"), (25.159, False, "25.2")],
)  # fmt: skip
def test_numbers_are_said_as_they_are_read(value, fraction, expected):
    assert said(value, fraction=fraction) == expected


def test_columns_of_shares_are_drawn_and_counts_are_not():
    rows = [
        {
            "class": "0.5",
            "fraction": "0.25",
            "count": "1",
            "share_std": "0.1",
            "loss": "2.5",
            "x": "",
        },
        {"class": "1", "fraction": "1", "count": "0", "share_std": "", "loss": "0.5", "x": ""},
    ]
    found = of_rows("t", rows)
    assert [column.numeric for column in found.columns] == [False, True, True, True, True]
    assert [[cell.fraction for cell in row] for row in found.rows] == [
        [None, 0.25, None, None, None],
        [None, 1.0, None, None, None],
    ]


def test_charts_take_the_pages_colours_and_leave_nothing_outside_themselves():
    lines = [Line(f"<{n}>", [(0, 1.0), (1, 2.0)], [0.1, 0.0]) for n in range(10)]
    for ticks in ((), ("<b>", "$x$")):
        chart = drawn("t", lines, across="<i>", says="s", ticks=ticks)
        assert "currentColor" in chart.svg
        assert "var(--line-0)" in chart.svg
        assert "#0102" not in chart.svg
        assert "<style" not in chart.svg
        assert "<i>" not in chart.svg
        assert "http" not in chart.svg
    assert [n for _, n in chart.legend] == [*range(8), 0, 1]
    assert "var(--line-1)" not in drawn("t", [Line("", [(0, 1.0)])] * 9, across="x", says="s").svg


def test_a_chart_of_nothing_is_a_chart():
    assert "<svg" in drawn("t", [Line("a", [])], across="x", says="s").svg


def test_a_line_over_another_is_dashed():
    points = [(0, 1.0), (1, 2.0)]
    apart = drawn("t", [Line("a", points), Line("b", [(0, 1.0), (1, 3.0)])], across="x", says="s")
    over = drawn("t", [Line("a", points), Line("b", points)], across="x", says="s")
    assert ["dasharray" in chart.svg for chart in (apart, over)] == [False, True]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b.html", "./a/b.html"), ("javascript:x", "./javascript%3Ax"), ('"<>', "./%22%3C%3E")],
)
def test_paths_are_links_within_the_folder(path, expected):
    assert address(path) == expected


def test_quantities_are_said_as_people_say_them():
    assert [duration(s) for s in (0.4, 59.4, 60, 3600, 10**400, float("inf"), "x")] == [
        "0.4 s", "59 s", "1 min 0 s", "1 h 0 min", "", "", "",
    ]  # fmt: skip
    assert [size(n) for n in (0, 999, 1500, 2e6, 3e9)] == ["0 B", "999 B", "1.5 kB", "2 MB", "3 GB"]
