"""The page of a sweep, or of any set of runs."""

import json
import os
from statistics import stdev

import pytest
from support.html_pages import check, read
from support.run_folders import CLASSES, make_explanations, make_full_run

from cwx.report.run import read_runs
from cwx.report.sweep_axes import sweep_points, swept_axes
from cwx.report.sweep_page import write_report
from cwx.report.sweep_tables import main_metrics, mean_of

HOSTILE = '<script>alert("x")</script>'


def make_noise_run(folder, value, *, seed=0, metrics=None, **more):
    """A run with label noise of rate `value`."""
    return make_full_run(
        folder,
        overrides=["experiment=cifar10/noise", f"corruption.rate={value}", f"seed={seed}"],
        settings={"corruption": {"rate": value}, "seed": seed},
        metrics={"fidelity/ratio": 0.5 + value, "other": 1.0} if metrics is None else metrics,
        paper={"fidelity/ratio": 0.46},
        **more,
    )


@pytest.fixture
def noise(tmp_path):
    """The folder of a sweep of four jobs; the last one failed."""
    for job, value in enumerate((0.75, 0, 0.25)):
        make_noise_run(tmp_path / "sweep" / str(job), value)
    make_noise_run(
        tmp_path / "sweep" / "3", 0.5, sources={}, error=ValueError("not <enough> memory")
    )
    return tmp_path / "sweep"


def page_of(*folders, out=None):
    page = read(write_report(folders, out).read_text())
    check(page)
    return page


def table(page, caption):
    return next(t for t in page.all("table") if t.all("caption")[0].text.startswith(caption))


def columns(table):
    return [head.text for head in table.all("thead")[0].all("tr")[-1].all("th")]


def cells(grid):
    """The alternative texts of an image grid: class → columns → images."""
    return {
        row.all("th")[0].text: [
            [image.attributes["alt"] for image in cell.all("img")] for cell in row.all("td")
        ]
        for row in grid.all("tbody")[0].all("tr")
    }


def test_runs_are_listed_with_swept_settings_and_main_metrics(noise):
    page = page_of(noise)
    runs = table(page, "Runs")
    assert columns(runs)[:4] == [
        "run", "state", "corruption.rate", "Fidelity ratio: held-out experts",
    ]  # fmt: skip
    assert [row[:4] for row in runs.rows()] == [
        ["0", "finished", "0.75", "1.25 paper 0.46"],
        ["1", "finished", "0", "0.5 paper 0.46"],
        ["2", "finished", "0.25", "0.75 paper 0.46"],
        ["3", "failed", "0.5", ""],
    ]
    assert "ValueError: not <enough> memory" in page.text
    assert "3 finished" in page.text


def test_each_run_has_a_page_and_a_link(noise):
    links = [link.attributes["href"] for link in table(page_of(noise), "Runs").all("a")]
    assert links == [f"./{job}/report.html" for job in range(4)]
    assert all((noise / link).is_file() for link in links)


def test_a_current_page_is_not_rewritten(noise):
    write_report([noise])
    page = noise / "1" / "report.html"
    page.write_text("mine")
    write_report([noise])
    assert page.read_text() == "mine"
    status = noise / "1" / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"seconds": 1000}))
    later = page.stat().st_mtime + 10
    os.utime(status, (later, later))
    write_report([noise])
    assert "16 min 40 s" in page.read_text()


def test_the_same_class_is_in_the_same_row_of_every_run(noise):
    grid = table(page_of(noise), "Images by class")
    assert columns(grid) == ["class", "real images", "0", "0.25", "0.5", "0.75"]
    by_class = cells(grid)
    assert list(by_class) == list(CLASSES)
    dog = by_class["dog"]
    assert dog[0] == ["dog: real images 1 of 4", "dog: real images 2 of 4"]
    assert dog[2][:2] == [
        "dog: distill 1 of 2, corruption.rate 0.25",
        "dog: distill 2 of 2, corruption.rate 0.25",
    ]
    assert all(alt.startswith("dog: ") for cell in dog for alt in cell)
    # The failed job has a column with its training images.
    assert not any("distill" in alt for alt in dog[3])
    assert "failed" in grid.all("tbody")[0].all("tr")[0].all("td")[3].text


def test_one_source_is_selected_at_a_time(noise):
    page = page_of(noise)
    (choice,) = page.all("fieldset")
    assert [label.text for label in choice.all("label")] == [
        "distill", "training images", "mean image",
    ]  # fmt: skip
    assert [i.attributes["type"] for i in choice.all("input")] == ["radio"] * 3
    assert [n for n, i in enumerate(choice.all("input")) if "checked" in i.attributes] == [0]


def test_metrics_are_shown_against_the_swept_setting(noise):
    page = page_of(noise)
    main = table(page, "Main metrics")
    assert columns(main) == [
        "metric", "corruption.rate 0", "corruption.rate 0.25", "corruption.rate 0.5",
        "corruption.rate 0.75", "paper",
    ]  # fmt: skip
    assert main.rows()[0][1:] == ["0.5", "0.75", "", "1.25", "0.46"]
    (chart,) = [f for f in page.all("figure") if f.all("svg")]
    description = chart.all("div")[0].attributes["aria-label"]
    assert description.endswith(
        "0.5 at 0, 0.75 at 0.25, 1.25 at 0.75, paper 0.46 at 0, 0.46 at 0.25, 0.46 at 0.75"
    )
    assert "◇ the paper's value." in chart.text
    assert "Dots" not in chart.text


def test_metrics_are_averaged_over_seeds(tmp_path):
    values = {(0, 0): 0.5, (0, 1): 0.75, (0.5, 0): 1.0, (0.5, 1): 2.0}
    for job, ((value, seed), ratio) in enumerate(values.items()):
        make_noise_run(tmp_path / str(job), value, seed=seed, metrics={"fidelity/ratio": ratio})
    page = page_of(tmp_path)
    (row,) = table(page, "Main metrics").rows()
    assert row[1:] == [f"0.625 ± {stdev([0.5, 0.75]):.2g}", f"1.5 ± {stdev([1, 2]):.2g}", "0.46"]
    grid = table(page, "Images by class")
    assert columns(grid) == ["class", "real images", "0", "0.5"]
    assert len([alt for alt in cells(grid)["cat"][1] if "distill" in alt]) == 4
    (chart,) = [f for f in page.all("figure") if f.all("svg")]
    assert "Dots: single runs; error bars: their standard deviation." in chart.text


def test_runs_that_differ_only_in_seeds_are_averaged_and_shown(tmp_path):
    for seed, ratio in enumerate((0.5, 0.75, 1.0)):
        make_noise_run(tmp_path / str(seed), 0, seed=seed, metrics={"fidelity/ratio": ratio})
    page = page_of(tmp_path)
    main = table(page, "Main metrics")
    own = ["seed 0", "seed 1", "seed 2"]
    assert columns(main) == ["metric", "mean of 3 runs", *own, "paper"]
    assert main.rows()[0][1:] == ["0.75 ± 0.25", "0.5", "0.75", "1", "0.46"]
    (chart,) = [f for f in page.all("figure") if f.all("svg")]
    description = chart.all("div")[0].attributes["aria-label"]
    assert description == "Fidelity ratio: held-out experts 0.75 ± 0.25, paper 0.46"
    # Each run has its images.
    assert columns(table(page, "Images by class")) == ["class", "real images", *own]


def test_runs_on_other_images_are_no_repeats(tmp_path):
    """Folders of one name or of the same long beginning may hold other images."""
    roots = [f"{'/images' * 8}/{name}" for name in ("a", "b")]
    for job, root in enumerate(roots):
        make_full_run(
            tmp_path / str(job),
            overrides=["data=image_folder", f"data.source.root={root}"],
            settings={"data": {"source": {"root": root}}, "seed": 0},
            metrics={"accuracy/expert/clean": 0.5 + job / 10},
        )
    runs = read_runs([tmp_path])
    axes = swept_axes(runs)
    assert [axis.key for axis in axes] == ["data.source.root"]
    _, points = sweep_points(runs, axes)
    labels = [point.text for point in points]
    assert [len(point.runs) for point in points] == [1, 1]
    assert [label[-2:] for label in labels] == ["/a", "/b"]


@pytest.mark.parametrize("values", [(0.0, 0.25), (0.25, 0.0)])
def test_what_a_first_run_hides_is_shown_if_another_has_it(tmp_path, values):
    for job, value in enumerate(values):
        metrics = {"corruption/effective_rate": value, "fidelity/ratio": 0.5}
        make_noise_run(tmp_path / str(job), value, metrics=metrics)
    titles = [title for _, title in main_metrics(read_runs([tmp_path]))]
    assert any(title.startswith("Corrupted training images") for title in titles)


def make_audit_run(folder, network, fine_tuned):
    evaluation_networks = {"expert": 0.1, "fine-tuned": fine_tuned, "vgg16": 0.3}
    metrics = {
        f"accuracy/{name}/{a}": v
        for name, v in evaluation_networks.items()
        for a in ("fgs_1", "fgs_5", "pgd")
    }
    chosen = {"network": network}
    overrides = [f"network={network}"]
    return make_full_run(folder, overrides=overrides, choices=chosen, metrics=metrics, sources={})


def test_a_group_with_too_many_lines_has_a_chart_per_row(tmp_path):
    make_audit_run(tmp_path / "0", "alexnet", 0.5)
    make_audit_run(tmp_path / "1", "vgg16", 0.25)
    page = page_of(tmp_path)
    descriptions = [
        f.all("div")[0].attributes["aria-label"] for f in page.all("figure") if f.all("svg")
    ]
    assert descriptions[0] == (
        "Accuracy under attack: FGS 1: explained 0.1 at alexnet, 0.1 at vgg16; "
        "fine-tuned 0.5 at alexnet, 0.25 at vgg16; vgg16 0.3 at alexnet, 0.3 at vgg16"
    )
    assert [text.split(": ")[1] for text in descriptions] == ["FGS 1", "FGS 5", "PGD"]
    heads = columns(table(page, "Runs"))
    assert heads[3:5] == [
        "Accuracy under attack: FGS 1, explained",
        "Accuracy under attack: FGS 1, fine-tuned",
    ]


def test_a_metric_is_averaged_over_the_runs_that_have_it(tmp_path):
    for seed, metrics in enumerate(({"a": 1.0}, {}, {"a": 3.0})):
        make_full_run(tmp_path / str(seed), metrics=metrics, sources={})
    mean = mean_of(read_runs([tmp_path]), "a")
    assert (mean.mean, mean.std, mean.repeats) == (2, stdev([1, 3]), 2)
    assert mean_of(read_runs([tmp_path]), "b") is None


def make_attack_run(folder, corruption, size, *, more=None, **rest):
    overrides = [f"corruption={corruption}", f"network.width={size}"]
    return make_full_run(
        folder,
        overrides=overrides,
        choices={"corruption": corruption, **(more or {})},
        settings={"corruption": {"target": corruption}, "network": {"width": size}},
        **{"metrics": {"attack_success/expert/success": size / 100}, **rest},
    )


def test_figures_of_runs_without_methods_are_rows(tmp_path):
    for job, network in enumerate(("alexnet", "vgg16")):
        make_audit_run(tmp_path / str(job), network, 0.5)
        settings = tmp_path / str(job) / ".hydra/config.yaml"
        settings.write_text("seed: 0\nmethod:\n  distill: {rate: 1}\n")
    (tmp_path / "0/figures/f.png").rename(tmp_path / "0/figures/representations.png")
    page = page_of(tmp_path)
    assert "Figures" in [h.text for h in page.all("h2")]
    alts = [b.all("img")[0].attributes["alt"] for b in page.all("button") if b.all("img")]
    assert [a for a in alts if ": " not in a and "mean image" not in a] == [
        "Representation distances r₁ and r₂ of adversarial images, network alexnet",
        "F, network vgg16",
    ]  # fmt: skip


def test_figures_of_runs_with_methods_are_on_their_own_pages(noise):
    assert "Figures" not in [h.text for h in page_of(noise).all("h2")]


def test_only_measured_blocks_have_lines(tmp_path):
    for job, size in enumerate((3, 5)):
        make_attack_run(tmp_path / f"a{job}", "badnets", size, metrics={"fidelity/ratio": 0.5})
        make_attack_run(tmp_path / f"b{job}", "blended", size, metrics={})
    make_attack_run(tmp_path / "c", "blended", 5, metrics={"attack_success/expert/success": 1.0})
    page = page_of(tmp_path)
    descriptions = [
        f.all("div")[0].attributes["aria-label"] for f in page.all("figure") if f.all("svg")
    ]
    assert len(descriptions) == 1
    assert "badnets" in descriptions[0]
    assert "blended" not in descriptions[0]


def test_metrics_that_most_runs_measured_come_first(tmp_path):
    common, rare = "fidelity/ratio", "accuracy/expert/clean"
    make_full_run(tmp_path / "0", metrics={common: 0.5, rare: 0.5}, sources={})
    make_full_run(tmp_path / "1", metrics={common: 0.5}, sources={})
    assert [name for name, _ in main_metrics(read_runs([tmp_path]))] == [common, rare]


def test_the_page_of_a_lost_run_is_updated_with_the_sweep(noise):
    write_report([noise])
    status = noise / "1" / "status.json"
    at = status.stat().st_mtime - 10
    status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "running"}))
    os.utime(status, (at, at))
    page = page_of(noise)
    assert "lost" in [row[1] for row in table(page, "Runs").rows()]
    assert "Lost" in (noise / "1" / "report.html").read_text()


def test_a_second_axis_has_headings_above_the_columns(tmp_path):
    jobs = [(c, s) for c in ("sig", "badnets") for s in (16, 8)]
    for job, (corruption, size) in enumerate(jobs):
        make_attack_run(tmp_path / str(job), corruption, size)
    grid = table(page_of(tmp_path), "Images by class")
    headings, _ = grid.all("thead")[0].all("tr")
    assert [
        (cell.text, cell.attributes.get("colspan")) for cell in headings.all("th", "td")
    ] == [
        ("", None), ("", "1"),
        ("corruption sig, network.width", "2"), ("corruption badnets, network.width", "2"),
    ]  # fmt: skip
    # Numbers are sorted; names keep their order.
    assert columns(grid) == ["class", "real images", "8", "16", "8", "16"]
    assert "corruption badnets, network.width 8" in cells(grid)["cat"][3][0]


def test_a_configuration_group_is_an_axis_of_its_options(tmp_path):
    for job, corruption in enumerate(("sig", "badnets")):
        make_attack_run(tmp_path / str(job), corruption, 8)
    (axis,) = swept_axes(read_runs([tmp_path]))
    assert (axis.key, list(axis.values), axis.numeric) == ("corruption", ["sig", "badnets"], False)


def test_an_override_of_some_runs_is_compared_with_the_settings_of_the_others(tmp_path):
    make_full_run(tmp_path / "0", settings={"a": {"b": 1}}, sources={})
    make_full_run(tmp_path / "1", settings={"a": {"b": 2}}, overrides=["a.b=2"], sources={})
    make_full_run(tmp_path / "2", settings={"a": {"b": 1}}, overrides=["+a.b=1"], sources={})
    (axis,) = swept_axes(read_runs([tmp_path]))
    assert (axis.key, list(axis.values)) == ("a.b", [1, 2])


def test_without_overrides_settings_that_differ_are_the_axes(tmp_path):
    for job, value in enumerate((True, 1)):
        make_full_run(
            tmp_path / str(job), settings={"a": {"b": value}, "store": str(job)}, sources={}
        )
    (axis,) = swept_axes(read_runs([tmp_path]))
    assert (axis.key, axis.numeric) == ("a.b", False)


def test_settings_changed_together_are_one_axis(tmp_path):
    for job in range(3):
        overrides = [f"a={job}", f"b={10 - job}"]
        make_full_run(
            tmp_path / str(job), overrides=overrides, settings={"a": job, "b": 10 - job}, sources={}
        )
    runs = read_runs([tmp_path])
    main_axis, points = sweep_points(runs, swept_axes(runs))
    assert main_axis.key == "a"
    assert [point.text for point in points] == ["a 0", "a 1", "a 2"]


def test_runs_that_form_no_grid_are_labelled_by_all_axes(tmp_path):
    for job, (a, b) in enumerate([(0.1, 7), (0.2, 3), (0.3, 7), (0.4, 5), (0.5, 4)]):
        overrides = [f"a={a}", f"b={b}"]
        make_full_run(
            tmp_path / str(job),
            overrides=overrides,
            settings={"a": a, "b": b},
            metrics={"fidelity/ratio": a},
        )
    page = page_of(tmp_path)
    grid = table(page, "Images by class")
    assert columns(grid)[2:4] == ["a 0.1, b 7", "a 0.2, b 3"]
    titles = [f.all("figcaption")[0].text for f in page.all("figure")]
    assert titles == ["Fidelity ratio against a", "Fidelity ratio against b"]


def test_runs_with_other_classes_have_their_own_grid(tmp_path):
    make_full_run(tmp_path / "0", choices={"data": "cifar10"}, overrides=["data=cifar10"])
    make_full_run(
        tmp_path / "1", classes=("0", "1"), choices={"data": "svhn"}, overrides=["data=svhn"]
    )
    page = page_of(tmp_path)
    grids = [t for t in page.all("table") if "Images by class" in t.all("caption")[0].text]
    assert [list(cells(grid)) for grid in grids] == [list(CLASSES), ["0", "1"]]


def test_runs_of_different_studies_are_compared_per_study(tmp_path):
    for job, value in enumerate((0, 0.5)):
        make_noise_run(
            tmp_path / "noise" / str(job), value, choices={"experiment": "cifar10/noise"}
        )
    for job, seed in enumerate((0, 1)):
        make_attack_run(
            tmp_path / "attack" / str(job), "sig", 8 + seed,
            experiment="backdoor", more={"experiment": "cifar10/backdoor"},
        )  # fmt: skip
    page = page_of(tmp_path)
    headings = [heading.text for heading in page.all("h2")]
    assert "cifar10/backdoor: images by network.width and class" in headings
    assert "cifar10/noise: images by corruption.rate and class" in headings
    links = {link.attributes["href"] for link in page.all("nav")[0].all("a")}
    assert {"#grid1", "#grid2"} <= links


def test_a_setting_computed_from_others_is_called_derived(tmp_path):
    make_full_run(tmp_path / "0", settings={"a": "${b}"}, sources={})
    make_full_run(tmp_path / "1", settings={"a": 3}, overrides=["a=3"], sources={})
    (axis,) = swept_axes(read_runs([tmp_path]))
    assert list(axis.values) == ["derived", 3]


def test_the_report_of_a_single_run_is_its_own_page(noise):
    assert write_report([noise / "0"]) == noise / "0" / "report.html"
    assert "By" not in table(page_of(noise / "0"), "Images").text


def test_a_run_with_runs_below_it_keeps_its_own_page(noise):
    make_full_run(noise / "aside", sources={})
    (noise / "status.json").write_text((noise / "0" / "status.json").read_text())
    assert write_report([noise]) == noise / "sweep.html"
    assert write_report([noise, noise / "0"], noise / "all.html") == noise / "all.html"
    links = [link.attributes["href"] for link in table(page_of(noise), "Runs").all("a")]
    assert links[0] == "./report.html" or "././report.html" in links


def test_runs_of_overlapping_folders_are_listed_once(noise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = write_report([noise / "0", noise, noise / "1"])
    assert page.resolve() == tmp_path / "report.html"
    assert len(table(read(page.read_text()), "Runs").rows()) == 4
    links = table(read(page.read_text()), "Runs").all("a")
    assert links[0].attributes["href"] == "./sweep/0/report.html"


def test_a_damaged_run_is_listed(noise):
    (noise / "1" / "status.json").write_text("{")
    (noise / "2" / "metrics.json").write_text("{")
    page = page_of(noise)
    rows = {row[0]: row[1] for row in table(page, "Runs").rows()}
    assert rows == {"0": "finished", "1": "damaged", "2": "finished", "3": "failed"}
    assert "2: metrics.json cannot be read" in page.text


def test_text_of_a_run_is_escaped(tmp_path):
    for job in range(2):
        make_full_run(
            tmp_path / HOSTILE.replace("/", "") / str(job),
            classes=(HOSTILE, "dog"),
            experiment=HOSTILE,
            overrides=[f"corruption={HOSTILE}{job}"],
            choices={"corruption": f"{HOSTILE}{job}"},
            metrics={"accuracy/expert/clean": 0.5},
            error=ValueError(HOSTILE) if job else None,
        )
    text = write_report([tmp_path]).read_text()
    check(read(text))
    assert HOSTILE not in text
    assert len(read(text).all("script")) == 1


def test_a_sweep_shows_a_limited_number_of_images(tmp_path):
    for job in range(4):
        make_full_run(
            tmp_path / str(job), overrides=[f"a={job}"], settings={"a": job},
            sources={"distill": make_explanations(per_class=10)},
        )  # fmt: skip
    grid = table(page_of(tmp_path), "Images by class")
    assert max(len(cell) for cell in cells(grid)["cat"]) <= 3 * 3


@pytest.mark.parametrize(
    ("folders", "out", "message"),
    [
        (["missing"], None, "missing is not a folder: name folders of runs"),
        (["empty"], None, r"there is no run \(no status.json\) in .*empty: name folders"),
        ([], None, "there is no run .* in no folder"),
        (["sweep"], "empty", "empty is a folder: name the file to write"),
    ],
)
def test_invalid_folders_and_outputs_are_errors(noise, tmp_path, folders, out, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        write_report([tmp_path / f for f in folders], tmp_path / out if out else None)
