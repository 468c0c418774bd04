"""The page of a run, complete or damaged."""

import base64
import csv
import hashlib
import io
import json
import re
from contextlib import nullcontext, suppress
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from support.html_pages import check, read
from support.pictures import remove
from support.run_folders import CLASSES, GREY, make_explanations, make_full_run, make_splits

from cwx.data.samples import sample_images
from cwx.explanations.images import Explanations
from cwx.explanations.margins import Margins
from cwx.explanations.patterns import Patterns, Perturbations
from cwx.explanations.serialisation import write_explanations
from cwx.report import figure_files
from cwx.report import figures as figures_module
from cwx.report.figures import run_figures
from cwx.report.run import read_run
from cwx.report.run_page import write_page
from cwx.storage.locks import writing
from cwx.storage.metric_names import class_metric
from cwx.study import page as study_page
from cwx.study.page import page_on_exit
from cwx.study.results import Results

# Each of these texts would take effect if it were not escaped.
HOSTILE = (
    '<script>document.title="taken"</script>',
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script>",
    "</title></style>{{ 7 * 7 }}",
    "a\u2028b\u2029'\"&amp;<!--",
)


def make_patterns(count=3):
    return Patterns(
        explains="expert",
        masks=torch.rand(count, 6, 5),
        canvases=torch.rand(count, 3, 6, 5),
        labels=torch.arange(count),
        searched=torch.ones(4, dtype=torch.bool),
    )


def make_perturbations(count=3):
    return Perturbations(
        explains="expert",
        deltas=torch.randn(count, 3, 6, 5) / 255,
        labels=torch.arange(count),
        epsilons=torch.full((count,), 8 / 255),
        searched=torch.ones(4, dtype=torch.bool),
    )


def make_margins(count=3):
    return Margins(
        explains="expert",
        unit_images=torch.rand(count, 3, 6, 5),
        labels=torch.arange(count),
        start_margins=torch.tensor([[1.0, 12.34, 3.0]]).expand(count, -1).contiguous(),
    )


def page_of(folder):
    page = read(write_page(folder).read_text())
    check(page)
    return page


def headings(page):
    return [heading.text for heading in page.all("h2")]


def grid_cells(page):
    """The alternative texts of the image grid: class → cells → images."""
    (table,) = [
        table for table in page.all("table") if "Images by class" in table.all("caption")[0].text
    ]
    rows = table.all("tbody")[0].all("tr")
    return {
        row.all("th")[0].text: [
            [image.attributes["alt"] for image in cell.all("img")] for cell in row.all("td")
        ]
        for row in rows
    }


def test_a_class_has_its_images_of_every_source_in_one_row(tmp_path):
    sources = {
        "distill": make_explanations(),
        "iscp": make_patterns(),
        "universal": make_perturbations(),
        "maximum_margin": make_margins(),
    }
    page = page_of(make_full_run(tmp_path / "run", sources=sources))
    cells = grid_cells(page)
    assert list(cells) == list(CLASSES)
    assert cells["dog"] == [
        ["dog: distill 1 of 2", "dog: distill 2 of 2"],
        ["dog: iscp"],
        ["dog: maximum_margin, margin 12.3"],
        ["dog: universal, ε = 8/255"],
        ["dog: real images 1 of 4", "dog: real images 2 of 4"],
        ["dog: training images 1 of 4", "dog: training images 2 of 4"],
        ["dog: mean image"],
    ]


def test_images_have_the_pixels_of_the_explanations(tmp_path):
    explanations = make_explanations()
    page = page_of(make_full_run(tmp_path / "run", sources={"distill": explanations}))
    image = next(i for i in page.all("img") if i.attributes["alt"] == "dog: distill 2 of 2")
    content = base64.b64decode(image.attributes["src"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    unit = explanations.images * 0.5 + 0.5
    # Black and white are those of the class.
    low, high = np.percentile(unit[explanations.labels == 1].numpy(), [1, 99])
    scaled = ((unit[3] - low) / (high - low)).clamp(0, 1)
    expected = (scaled * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels - expected).max() <= 1
    assert (image.attributes["width"], image.attributes["height"]) == ("5", "6")


@pytest.mark.parametrize("side", [6, 8, 28, 32, 48, 64])
@pytest.mark.parametrize("count", [1, 30])
def test_small_images_of_the_grid_are_shown_at_whole_multiples(tmp_path, side, count):
    labels = torch.arange(3).repeat_interleave(count)
    images = Explanations(torch.randn(len(labels), 3, side, side), labels)
    page = page_of(make_full_run(tmp_path / "run", sources={"distill": images}))
    (grid,) = (e for e in page.all("div") if "--tile" in e.attributes.get("style", ""))
    tile, native = re.findall(r"\d+", grid.attributes["style"])
    assert int(native) == side == int(grid.attributes["data-native"])
    assert int(tile) % side == 0


def test_a_class_name_is_whole_in_its_tooltip(tmp_path):
    name = "Speed limit (20 km/h) " * 20
    page = page_of(make_full_run(tmp_path / "run", classes=(name, "dog")))
    titles = [e.attributes.get("title") for e in page.all("span")]
    assert name in titles


@pytest.mark.parametrize("name", HOSTILE)
def test_text_of_a_run_is_escaped(tmp_path, name):
    folder = make_full_run(
        tmp_path / "run",
        classes=(name, "dog"),
        experiment=name,
        overrides=[f"data={name}"],
        settings={"evaluation": {"gallery": {"titles": {"distill": name}}}},
        metrics={f"predictive_power/power/{name.replace('/', '')}/0.05": 0.5, name: 1.0},
        paper={name: 0.5},
        tables={"t": [{name: name, "class": name}]},
    )
    logs = folder / "logs" / "version_1"
    logs.mkdir()
    with (logs / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["step", f"{name}/loss"], [0, 1], [1, 2]])
    (folder / "cwx.log").write_text(name)
    (folder / f"{name.replace('/', '')}.html").write_text("")
    text = write_page(folder).read_text()
    page = read(text)
    check(page)
    assert name not in text
    assert len(page.all("script")) == len(page.all("style")) == len(page.all("title")) == 1
    assert "alert" not in page.all("script")[0].text
    assert not [e for e in page.all("img") if "onerror" in e.attributes]
    # The title shows the text unchanged, not evaluated as a template.
    assert " ".join(name.split()) in page.all("h1")[0].text
    assert "49" not in page.all("h1")[0].text
    assert next(iter(grid_cells(page))) == " ".join(name.split())


def test_the_policy_allows_only_this_script_and_loads_nothing(tmp_path):
    text = write_page(make_full_run(tmp_path / "run")).read_text()
    page = read(text)
    (policy,) = (
        meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes
    )
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "http://" not in text
    assert "https://" not in text


def test_metrics_are_shown_with_the_papers_values(tmp_path):
    metrics = {
        "accuracy/expert/clean": 0.4164,
        "predictive_power/power/iscp/0.05": 0.369,
        "rest": 3.0,
    }
    paper = {"accuracy/expert/clean": 0.8534, "predictive_power/whole/iscp/0.05": 0.591}
    page = page_of(make_full_run(tmp_path / "run", metrics=metrics, paper=paper))
    cards = {card.all("h3")[0].text: card.text for card in page.all("li") if card.all("h3")}
    assert "41.6 % paper 85.3 %" in cards["Test accuracy ↑ higher is better"]
    assert "36.9 % paper 59.1 %" in cards["Predictive power of patterns ↑ higher is better"]
    assert ["accuracy/expert/clean", "0.4164", "0.8534", "-0.44"] in page.rows()
    assert ["rest", "3", ""] in page.rows()


def test_paper_values_by_class_and_size_are_a_two_way_table(tmp_path):
    # A class may have the name of a statistic, or a slash in its name.
    sizes, classes = ("0.01", "0.02", "0.1"), ("std", "a/b", *CLASSES)
    means = [f"predictive_power/whole/iscp/{s}" for s in sizes]
    paper = {class_metric(mean, name): 0.25 for mean in means for name in classes}
    paper |= dict.fromkeys(means, 0.5) | {f"{mean}/std": 0.0625 for mean in means}
    metrics = dict.fromkeys(paper, 0.125)
    page = page_of(make_full_run(tmp_path / "run", metrics=metrics, paper=paper))
    (table,) = [t for t in page.all("table") if t.all("caption")[0].text.endswith("images: iscp")]
    assert [head.text for head in table.all("thead")[0].all("th")] == ["", *sizes]
    rows = table.rows()
    assert [row[0] for row in rows] == ["overall", *classes, "std"]
    assert [row[1] for row in rows] == [
        "0.125 paper 0.5", *["0.125 paper 0.25"] * len(classes), "0.125 paper 0.0625"
    ]  # fmt: skip


def test_the_page_of_a_failed_run_states_the_error_and_the_missing_parts(tmp_path):
    folder = make_full_run(tmp_path / "run", sources={}, error=ValueError("the rate is <2>"))
    page = page_of(folder)
    assert "Failed" in headings(page)
    assert "ValueError: the rate is <2>" in page.text
    assert "the last line" in page.text
    assert (
        "no explanations (no method has finished); no metrics (no evaluation has finished)"
        in page.text
    )
    # Real images are shown.
    assert list(grid_cells(page)) == list(CLASSES)


def test_the_traceback_of_a_failure_is_folded(tmp_path):
    page = page_of(make_full_run(tmp_path / "run", sources={}, error=ValueError("<b>no</b>")))
    (alert,) = [s for s in page.all("section") if "alert-failed" in s.attributes.get("class", "")]
    traceback, log = alert.all("details")
    assert "open" not in traceback.attributes | log.attributes
    assert traceback.text.startswith("Traceback")
    assert "ValueError: <b>no</b>" in traceback.text
    assert "run_folders.py" in traceback.text
    assert not alert.all("b")


def test_a_running_run_without_a_process_is_lost(tmp_path):
    folder = make_full_run(tmp_path / "run")
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "running"}))
    page = page_of(folder)
    assert "Lost" in headings(page)
    assert "lost" in page.all("p")[0].text
    with writing(folder):
        assert "Still running" in headings(page_of(folder))


def test_a_job_without_a_log_shows_its_output(tmp_path):
    folder = make_full_run(tmp_path / "run", error=ValueError("no"))
    (folder / "cwx.log").unlink()
    (folder / "output.log").write_text("the last output\n\n")
    assert "the last output" in page_of(folder).text


def run_until(results, error):
    with (
        suppress(type(error)),
        page_on_exit(results),
        results.running(experiment="e", resumed=False),
    ):
        raise error


@pytest.mark.parametrize(
    ("error", "heading"),
    [(ValueError("no <way>"), "Failed"), (KeyboardInterrupt(), "Interrupted")],
)
def test_a_run_has_a_page_however_it_ends(tmp_path, error, heading):
    run_until(Results(tmp_path / "run"), error)
    assert heading in headings(read((tmp_path / "run/report.html").read_text()))
    with (
        page_on_exit(results := Results(tmp_path / "good")),
        results.running(experiment="e", resumed=False),
    ):
        pass
    assert (tmp_path / "good/report.html").exists()


def test_a_run_that_cannot_start_writes_no_page(tmp_path):
    run_until(Results(tmp_path), ValueError("no"))
    (tmp_path / "report.html").unlink()
    results = Results(tmp_path)
    with pytest.raises(ValueError, match="holds a run already"), page_on_exit(results):  # noqa: SIM117
        with results.running(experiment="e", resumed=False):
            pass
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("broken", [RuntimeError("of the page"), KeyboardInterrupt()])
@pytest.mark.parametrize("error", [ZeroDivisionError("of the run"), SystemExit(3), None])
def test_a_page_error_does_not_hide_the_error_of_the_run(
    tmp_path, monkeypatch, caplog, error, broken
):
    def fail(folder):
        raise broken

    monkeypatch.setattr(study_page, "write_page", fail)
    results = Results(tmp_path)
    caught = nullcontext() if error is None else pytest.raises(type(error))
    with caught as raised, page_on_exit(results), results.running(experiment="e", resumed=False):
        if error is not None:
            raise error
    assert error is None or raised.value is error
    assert "the page could not be written; try again with: cwx report" in caplog.text


def test_the_error_of_a_run_is_raised_even_if_its_status_cannot_be_written(tmp_path, monkeypatch):
    results = Results(tmp_path)
    with pytest.raises(ZeroDivisionError), results.running(experiment="e", resumed=False):  # noqa: PT012
        monkeypatch.setattr(results, "_end", Mock(side_effect=OSError("the disk is full")))
        raise ZeroDivisionError


def test_a_resumed_run_removes_its_old_traceback(tmp_path):
    run_until(Results(tmp_path), ValueError("no"))
    assert "ValueError: no" in (tmp_path / "traceback.txt").read_text()
    with Results(tmp_path).running(experiment="e", resumed=True):
        assert not (tmp_path / "traceback.txt").exists()


def make_run_with_figures(folder, figures, method=None):
    folder = make_full_run(
        folder, settings={"method": method or {"distill": {"rate": 1}}}, sources={}
    )
    (folder / "figures/f.png").unlink()
    for name, size in figures.items():
        noise = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "figures" / f"{name}.png")
    return folder


def test_without_a_method_figures_come_before_images(tmp_path):
    names = ("representations", "own_one", "neurons_sheet_fine-tuned", "neurons_sheet_expert")
    page = page_of(make_run_with_figures(tmp_path / "audit", dict.fromkeys(names, (4, 6))))
    assert "no method has finished" not in page.text
    order = [h.text for h in page.all("h2")]
    assert order.index("Figures") < order.index("Images by class") < order.index("Tables")
    figures = [f for f in page.all("figure") if f.all("h3")]
    assert [f.all("h3")[0].text for f in figures] == [
        "Top images of neurons: explained experts", "Top images of neurons: fine-tuned experts",
        "Representation distances r₁ and r₂ of adversarial images", "Own one",
    ]  # fmt: skip
    assert all(f.all("figcaption")[0].all("p")[0].text for f in figures[:3])
    image = figures[0].all("img")[0].attributes
    assert (image["width"], image["height"]) == ("6", "4")
    assert image["alt"].startswith("Top images of neurons: explained experts. Two rows")
    assert figures[0].all("a")[0].attributes["href"] == "./figures/neurons_sheet_expert.png"


def test_with_a_method_images_come_before_figures(tmp_path):
    method = {"distill": {"_target_": "x"}}
    page = page_of(make_run_with_figures(tmp_path / "run", {"patterns": (4, 6)}, method))
    order = [h.text for h in page.all("h2")]
    assert order.index("Figures") > order.index("Images by class")


def test_large_figures_are_embedded_as_reduced_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(figures_module, "MAX_BYTES", 3000)
    monkeypatch.setattr(figure_files, "REDUCED_PIXELS", 600)
    monkeypatch.setattr(figures_module, "MAX_TOTAL_BYTES", 6000)
    sizes = {"a": (20, 30), "b": (60, 120), "c": (20, 30), "d": (60, 120)}
    run = read_run(make_run_with_figures(tmp_path / "run", sizes))
    figures = run_figures(run)
    assert [figure.size for figure in figures[:3]] == [(30, 20), (34, 17), (30, 20)]
    assert figures[1].uri.startswith("data:image/jpeg")
    assert [figure.note for figure in figures[:3]] == [
        "", "Reduced copy; the file has full resolution.", "",
    ]  # fmt: skip
    total = sum(len(base64.b64decode(f.uri.partition(",")[2])) for f in figures)
    assert total <= 6000
    assert all(bool(figure.uri) == (figure.size != (0, 0)) for figure in figures)


def test_empty_columns_are_left_out(tmp_path):
    rows = [{"network": "a", "accuracy": 0.5, "accuracy_std": ""}]
    page = page_of(make_full_run(tmp_path / "run", tables={"accuracy": rows}))
    (table,) = [
        t
        for t in page.all("table")
        if t.all("caption")[0].text == "Accuracy, clean and under attack"
    ]
    assert [head.text for head in table.all("thead")[0].all("th")] == ["network", "accuracy"]


def test_the_last_good_images_of_a_diverged_method_are_shown(tmp_path):
    folder = make_full_run(tmp_path / "run", sources={})
    Results(folder).save_last_good("distill", make_explanations())
    cells = grid_cells(page_of(folder))
    assert cells["cat"][0][0] == "cat: distill before divergence 1 of 2"


DAMAGED = {
    "metrics.json": b"{",
    "explanations.safetensors": b"\x10\0\0\0\0\0\0\0{}",
    "samples.safetensors": b"no",
    "tables/classes.csv": b"index\n\xff\xfe",
    "tables/paper.csv": b"name,measured,paper\na,1,many\n",
    ".hydra/config.yaml": b"a: [",
    ".hydra/hydra.yaml": b"- 1\n",
    ".hydra/overrides.yaml": b"a: 1\n",
    "figures/f.png": b"\x89PNG\r\n\x1a\n cut",
    "logs/version_0/metrics.csv": b"step,a/b\n0,x\n\xff,1\n",
    "cwx.log": b"\xff\xfe",
}


@pytest.mark.parametrize("name", [*DAMAGED, "all"])
def test_a_damaged_file_affects_only_its_part_of_the_page(tmp_path, name):
    metrics, paper = {"accuracy/expert/clean": 0.5}, {"accuracy/expert/clean": 0.9}
    folder = make_full_run(tmp_path / "run", metrics=metrics, paper=paper)
    for damaged in DAMAGED if name == "all" else [name]:
        (folder / damaged).write_bytes(DAMAGED[damaged])
    page = page_of(folder)
    silent = ("logs/version_0/metrics.csv", "cwx.log")
    message = "This figure is damaged" if name == "figures/f.png" else "cannot be read"
    assert (message in page.text) == (name not in silent)


@pytest.mark.parametrize("name", ["explanations.safetensors", "samples.safetensors", ".hydra"])
def test_a_page_is_written_without_optional_files(tmp_path, name):
    folder = make_full_run(tmp_path / "run", metrics={"accuracy/expert/clean": 0.5})
    remove(folder / name)
    page = page_of(folder)
    assert "Main metrics" in headings(page)
    assert "Damaged files" not in headings(page)


def test_images_and_labels_of_different_length_are_reported(tmp_path):
    folder = make_full_run(tmp_path / "run", sources={})
    good = make_explanations()
    short = type(good)(good.images.clone(), good.labels[:2].clone())
    outputs = {"short": short, "good": good}
    write_explanations(folder / "explanations.safetensors", outputs)
    page = page_of(folder)
    assert "the output of short cannot be read" in page.text
    assert grid_cells(page)["cat"][0] == ["cat: good 1 of 2", "cat: good 2 of 2"]


def test_other_pages_of_the_run_are_linked(tmp_path):
    folder = make_full_run(tmp_path / "run")
    (folder / "traces.html").write_text("")
    links = {link.attributes["href"] for link in page_of(folder).all("a")}
    assert "./traces.html" in links
    assert "./report.html" not in links


def test_provenance_has_seeds_versions_and_command(tmp_path):
    settings = {"experts": {"seeds": [0, 1], "held_out": [100], "early": {"seeds": []}}}
    folder = make_full_run(tmp_path / "run", settings=settings, overrides=["seed=0"])
    page = page_of(folder)
    (provenance,) = [dl for dl in page.all("dl") if dl.attributes.get("class") == "facts"]
    facts = {div.all("dt")[0].text: div.all("dd")[0].text for div in provenance.all("div")}
    assert facts["seeds"] == "study 0 · explained experts 0, 1 · held-out experts 100"
    assert "torch" in facts["versions"]
    assert facts["command"]
    assert "- seed=0" in page.text


def test_curves_have_a_legend_of_stages(tmp_path):
    page = page_of(make_full_run(tmp_path / "run"))
    charts = {f.all("figcaption")[0].text: f for f in page.all("figure") if f.all("svg")}
    assert list(charts) == ["expert · loss", "distill · loss"]
    assert [item.text for item in charts["expert · loss"].all("li")] == ["expert-0", "expert-1"]
    descriptions = [div.attributes["aria-label"] for div in charts["expert · loss"].all("div")]
    assert descriptions == ["loss of expert by step; last value 1.5, 1"]


def test_a_run_reads_its_samples_and_normalisation(tmp_path):
    data = make_splits()
    results = Results(tmp_path)
    with results.running(experiment="x", resumed=False):
        results.save_samples(data, GREY)
    run = read_run(tmp_path)
    assert torch.equal(run.samples()["real"].images, sample_images(data)["real/images"])
    assert run.normalization(3) == GREY
    assert not run.read_errors
