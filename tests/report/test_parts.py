"""Parts of pages: image limits, downsampled curves, metric groups and cards, tables, charts."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.report.image_sources import ImageSource
from cwx.report.inline_images import (
    CROWD,
    MAX_PNG_BYTES,
    MIN_SIDE,
    ImageLimits,
    encode_images,
    fit_limits,
)
from cwx.report.metric_cards import format_value, metric_cards
from cwx.report.metric_groups import group_metrics
from cwx.report.render import link
from cwx.report.run import RunContents
from cwx.report.svg_charts import Line, draw_chart
from cwx.report.tables import table_of_rows
from cwx.report.training_curves import downsample, read_curves
from cwx.storage.csv_files import CsvTable
from cwx.storage.quantities import duration, size


def make_source(labels, shape=(3, 4, 4), image=None):
    return ImageSource(
        key="x", title="x", meaning="", labels=labels, shape=shape,
        render=lambda _, count: torch.rand(count, *shape) if image is None else image[None],
    )  # fmt: skip


LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=30)
SIDES = st.sampled_from([4, 32, 63, 64, 200])


@given(
    st.lists(st.tuples(LABELS, SIDES), min_size=1, max_size=4),
    st.integers(1, 1_000_000),
    st.integers(1, 60),
    st.integers(1, 8) | st.none(),
)
def test_images_fit_the_limits_and_every_class_has_one(
    source_shapes, max_bytes, max_count, per_class
):
    sources = [make_source(labels, (3, side, side)) for labels, side in source_shapes]
    limits = fit_limits(sources, per_class=per_class, max_bytes=max_bytes, max_count=max_count)
    assert 1 <= limits.per_class <= (per_class or 30)
    labels = {label for s in sources for label in s.labels}
    classes = {label for label in labels if limits.before is None or label < limits.before}
    assert classes
    counts = [
        (
            s,
            sum(
                min(len(indices), limits.per_class)
                for label, indices in s.indices_by_class.items()
                if label in classes
            ),
        )
        for s in sources
    ]
    count = sum(n for _, n in counts)
    assert count <= max_count or limits.per_class == 1
    # With at most six classes, one class alone may exceed the limit.
    assert count <= CROWD * max_count or len(classes) == 1 or count <= 2 * CROWD * max_count
    size = sum(3 * (s.shape[1] / limits.factor(s.shape)) ** 2 * n for s, n in counts)
    sides = [(s.shape[1] / limits.factor(s.shape), s.shape[1]) for s in sources]
    assert size <= max_bytes or all(side < 2 * MIN_SIDE for side, _ in sides)
    assert all(side >= min(MIN_SIDE, original) for side, original in sides)
    is_complete = count == sum(len(s.labels) for s in sources)
    assert limits.complete == is_complete
    assert bool(limits.note) == (limits.shrink > 1 or not is_complete)
    if limits.shrink > 1:
        # Images are reduced no more than needed.
        assert limits.per_class == 1
        larger = replace(limits, shrink=limits.shrink - 1)
        assert (
            sum(3 * (s.shape[1] / larger.factor(s.shape)) ** 2 * n for s, n in counts) > max_bytes
        )


def test_encoded_images_respect_the_limits():
    source = make_source([0, 0, 0, 1, 1, 2, 3, 3], (3, 100, 64))
    images = encode_images(source, ImageLimits(2, 3, before=3, complete=False), str)
    assert {name: len(of_class) for name, of_class in images.items()} == {"0": 2, "1": 2, "2": 1}
    assert (images["0"][0].width, images["0"][0].height) == (32, 50)


def test_small_images_are_png_and_large_noisy_images_are_jpeg():
    small, large = torch.rand(3, 32, 32), torch.rand(3, 224, 224)
    limits = fit_limits([make_source([0])])
    for pixels, kind, max_length in ((small, "png", 6000), (large, "jpeg", 4 * 224 * 224)):
        (image,) = encode_images(make_source([0], tuple(pixels.shape), pixels), limits, str)["0"]
        assert image.uri.startswith(f"data:image/{kind};base64,")
        assert len(image.uri) < max_length
    flat = torch.full((3, 224, 224), 0.5)
    (image,) = encode_images(make_source([0], (3, 224, 224), flat), limits, str)["0"]
    assert image.uri.startswith("data:image/png")
    assert len(image.uri) < MAX_PNG_BYTES


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_number_of_channels_are_encoded(channels):
    limits = fit_limits([make_source([0])])
    pixels = torch.full((channels, 4, 5), float("nan"))
    (image,) = encode_images(make_source([0], (channels, 4, 5), pixels), limits, str)["0"]
    assert (image.width, image.height) == (5, 4)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=2000), st.integers(4, 300))
def test_downsampled_curves_keep_their_order_and_their_peaks(values, count):
    points = list(enumerate(values))
    kept = downsample(points, count)
    assert len(kept) <= max(count, 4)
    assert set(kept) <= set(points)
    assert kept == sorted(kept)
    assert min(v for _, v in kept) == min(values)
    assert max(v for _, v in kept) == max(values)


def test_a_truncated_log_is_read_up_to_the_truncation(tmp_path):
    folder = tmp_path / "logs" / "version_0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("step,a/x,b/y\n0,1,nan\n1,2,\n2,x,inf\n3,4\n4")
    (tmp_path / "logs" / "version_odd").mkdir()
    assert read_curves(RunContents(folder=tmp_path, status={})) == {"a/x": [(0, 1), (1, 2), (3, 4)]}


def test_metric_groups_have_titles_and_labels():
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
    groups = group_metrics(metrics, {"distill": "CWX"})
    assert {group.title: [metric.text for metric in group.metrics] for group in groups} == {
        "Fidelity ratio": ["fitted experts", "held-out experts"],
        "Accuracy on the explanations": ["CWX, explained", "real images, explained"],
        "Predictive power of patterns": ["5 % of pixels, iscp"],
        "Predictive power of perturbations": ["ε = 8/255, universal"],
    }


def test_power_on_the_images_of_the_search_is_shown_under_its_name_where_there_is_no_other():
    metrics = {
        "predictive_power/power/iscp/0.05": 0.3,
        "predictive_power/whole/iscp/0.05": 0.4,
        "predictive_power/whole/iscp/0.05/std": 0.1,
        "predictive_power/whole/other/0.05": 0.5,
        "predictive_power/whole/universal/8": 0.9,
    }
    groups = {
        group.title: [(metric.text, metrics[metric.name]) for metric in group.metrics]
        for group in group_metrics(metrics, {})
    }
    on_search = "on the images of their search"
    assert groups == {
        "Predictive power of patterns": [("5 % of pixels, iscp", 0.3)],
        f"Predictive power of patterns {on_search}": [("5 % of pixels, other", 0.5)],
        f"Predictive power of perturbations {on_search}": [("ε = 8/255, universal", 0.9)],
    }


AUDITED = {
    "adversary/success/expert": 1.0,
    "adversarial_set/expert/clean_top1": 0.71,
    "adversarial_set/expert/top1": 0.01,
    "adversarial_set/fine-tuned/clean_top1": 0.63,
    "adversarial_set/fine-tuned/top1": 0.48,
    "adversarial_set/vgg16-unseen/top1": 0.5,
    "adversarial_set/fine-tuned/success": 0.05,
    "adversarial_set/distance": 725.8,
    "accuracy/expert/clean": 0.69,
    "accuracy/expert/clean/top5": 0.97,
    "accuracy/expert/fgs_1": 0.42,
    "accuracy/expert/fgs_1/top5": 0.93,
    "accuracy/fine-tuned/fgs_1": 0.54,
    "neurons/expert/lc": 0.33,
    "neurons/fine-tuned/lc": 0.29,
    "neurons/expert/high/cs2": 0.93,
    "representations/expert/r1": 1.31,
    "representations/fine-tuned/r1": 1.01,
    "representations/fine-tuned/left_out": 0.0,
    "adversarial_detection/expert/auc": 0.72,
    "traces/fine-tuned/adversarial/consistent": 0.25,
}


def test_networks_before_and_after_fine_tuning_are_columns_of_one_group():
    rows_by_title = {
        group.title: {
            label: [(m.label, AUDITED[m.name]) for m in group.with_label(label).metrics]
            for label in group.labels
        }
        for group in group_metrics(AUDITED, {})
    }
    assert rows_by_title == {
        "Test accuracy": {"explained experts": [("top-1", 0.69), ("top-5", 0.97)]},
        "Accuracy on the adversarial set": {
            "explained experts": [("clean, top-1", 0.71), ("adversarial, top-1", 0.01)],
            "fine-tuned experts": [("clean, top-1", 0.63), ("adversarial, top-1", 0.48)],
            "vgg16, not attacked": [("adversarial, top-1", 0.5)],
        },
        "Targeted attack success rate": {"fine-tuned experts": [("", 0.05)]},
        "Accuracy under attack": {"FGS 1": [("explained", 0.42), ("fine-tuned", 0.54)]},
        "Top-5 accuracy under attack": {"FGS 1": [("explained", 0.93)]},
        "LC and CS, all neurons": {"LC": [("explained", 0.33), ("fine-tuned", 0.29)]},
        "LC and CS, neurons of highest LC": {"CS₂ (target class)": [("explained", 0.93)]},
        "Representation distances of adversarial images": {
            "r₁ (true class)": [("explained", 1.31), ("fine-tuned", 1.01)],
        },
        "Adversarial detection (AUROC)": {"explained experts": [("", 0.72)]},
        "Evidence for predictions": {"consistent, adversarial images": [("fine-tuned", 0.25)]},
    }


def test_ensemble_attack_success_is_a_group_without_the_adversarial_set_evaluation():
    groups = group_metrics({"adversary/success/expert": 1.0}, {})
    assert [group.title for group in groups] == ["Ensemble attack success rate"]


def test_the_target_of_a_backdoor_is_shown_against_other_classes():
    parts = {"target": 0.9, "others": 0.25}
    metrics = {
        f"predictive_power/{name}/{part}": value
        for name in ("power/iscp/0.01", "transfer/iscp/0.01/clean")
        for part, value in parts.items()
    }
    groups = {group.title: group.metrics for group in group_metrics(metrics, {})}
    assert [*groups] == [
        "Backdoor target, predictive power of iscp/0.01",
        "Backdoor target, transfer of iscp/0.01/clean",
    ]
    for members in groups.values():
        values = {member.label: metrics[member.name] for member in members}
        assert values == {"target class": 0.9, "other classes": 0.25}


@pytest.mark.parametrize("fraction", [0.5, 1.5])
def test_a_card_with_a_value_outside_0_to_1_has_no_bars(tmp_path, fraction):
    metrics = {"representations/expert/r1": fraction, "representations/expert/r2": 0.5}
    paper = {"representations/expert/r2": 0.76}
    run = RunContents(folder=tmp_path, status={}, metrics=metrics, paper=paper)
    (card,) = metric_cards(run)
    (first,), (second,) = (values for _, values in card.rows)
    assert (first.text, second.text, second.paper) == (f"{fraction:.2f}", "0.50", "0.76")
    assert [first.bar, second.bar] == ([0.5, 0.5] if fraction < 1 else [None, None])


def test_a_card_counts_the_values_that_it_leaves_out(tmp_path):
    evaluation_networks = [f"n{n}" for n in range(8)]
    metrics = {f"discriminative/{m}/{j}": 0.5 for m in "abcdefgh" for j in evaluation_networks}
    del metrics["discriminative/a/n1"]
    (card,) = metric_cards(RunContents(folder=tmp_path, status={}, metrics=metrics))
    assert card.columns == ["n0", "n2", "n3", "n4", "n5", "n6"]
    assert [label for label, _ in card.rows] == list("abcdef")
    assert card.more == 63 - 36
    assert card.layout == "wide"


@pytest.mark.parametrize(
    ("value", "fraction", "expected"),
    [(0.98183, True, "98.2 %"), (1.0, True, "100 %"), (0.02739, True, "2.74 %"),
     (0.7871, False, "0.79"), (-0.14, False, "-0.14"), (25.159, False, "25.2")],
)  # fmt: skip
def test_values_are_formatted(value, fraction, expected):
    assert format_value(value, fraction=fraction) == expected


def test_fraction_columns_have_bars_and_counts_have_none():
    rows = [
        {
            "class": "0.5",
            "fraction": "0.25",
            "count": "1",
            "fraction_std": "0.1",
            "loss": "2.5",
            "x": "",
        },
        {"class": "1", "fraction": "1", "count": "0", "fraction_std": "", "loss": "0.5", "x": ""},
    ]
    table = table_of_rows("t", CsvTable(list(rows[0]), rows))
    assert [column.numeric for column in table.columns] == [False, True, True, True, True]
    assert [[cell.fraction for cell in row] for row in table.rows] == [
        [None, 0.25, None, None, None],
        [None, 1.0, None, None, None],
    ]


def test_charts_have_the_pages_colours_and_no_style_or_link():
    lines = [Line(f"<{n}>", [(0, 1.0), (1, 2.0)], [0.1, 0.0]) for n in range(10)]
    for ticks in ((), ("<b>", "$x$")):
        chart = draw_chart("t", lines, x_label="<i>", description="s", ticks=ticks)
        assert "currentColor" in chart.svg
        assert "var(--line-0)" in chart.svg
        assert "#0102" not in chart.svg
        assert "<style" not in chart.svg
        assert "<i>" not in chart.svg
        assert "http" not in chart.svg
    assert [n for _, n in chart.legend] == [*range(8), 0, 1]
    assert (
        "var(--line-1)"
        not in draw_chart("t", [Line("", [(0, 1.0)])] * 9, x_label="x", description="s").svg
    )


def test_a_chart_without_points_is_drawn():
    assert "<svg" in draw_chart("t", [Line("a", [])], x_label="x", description="s").svg


def test_a_line_that_covers_an_identical_line_is_dashed():
    points = [(0, 1.0), (1, 2.0)]
    different = draw_chart(
        "t", [Line("a", points), Line("b", [(0, 1.0), (1, 3.0)])], x_label="x", description="s"
    )
    identical = draw_chart(
        "t", [Line("a", points), Line("b", points)], x_label="x", description="s"
    )
    assert ["dasharray" in chart.svg for chart in (different, identical)] == [False, True]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b.html", "./a/b.html"), ("javascript:x", "./javascript%3Ax"), ('"<>', "./%22%3C%3E")],
)
def test_links_stay_relative_to_the_folder(path, expected):
    assert link(path) == expected


def test_durations_and_sizes_have_units():
    assert [duration(s) for s in (0.4, 59.4, 60, 3600, 10**400, float("inf"), "x")] == [
        "0.4 s", "59 s", "1 min 0 s", "1 h 0 min", "", "", "",
    ]  # fmt: skip
    assert [size(n) for n in (0, 999, 1500, 2e6, 3e9)] == ["0 B", "999 B", "1.5 kB", "2 MB", "3 GB"]


def test_a_downsampled_curve_keeps_its_peaks_and_order():
    points = [
        (step, 100.0 if step == 617 else -50.0 if step == 342 else 0.0) for step in range(1000)
    ]
    shorter = downsample(points, 40)
    assert len(shorter) <= 40
    assert {(617, 100.0), (342, -50.0)} <= set(shorter)
    assert shorter == sorted(shorter)
    assert downsample(points[:40], 40) == points[:40]
