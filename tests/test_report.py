import csv
import json

import pytest
import torch
from html_pages import read

from cwx.data.sources import ImageSet, Splits
from cwx.evaluations.outcome import Outcome
from cwx.explanations import Explanations
from cwx.figures import sheet
from cwx.report.curves import charts, read_curves
from cwx.report.page import write_page
from cwx.results import Results, read_status

NASTY = '<script>alert("x")</script>'


@pytest.fixture
def run(tmp_path):
    results = Results(tmp_path / "run")
    with results.running(experiment=NASTY, resumed=False):
        labels = torch.tensor([0, 1])
        figure = sheet({"$x_$": torch.rand(2, 1, 4, 4)}, {"$x_$": labels}, [NASTY, "$x^2$"])
        rows = [{"class": NASTY, "value": 0.5}]
        outcome = Outcome(
            numbers={"fidelity/ratio": 0.25, "bad": float("nan")},
            tables={"t": rows},
            figures={"explanations": figure},
        )
        results.add_outcomes({"x": outcome}, {"fidelity/ratio": 0.46, "else": 0.8534})
    return results.folder


def test_the_page_is_whole_and_escapes_names(run):
    text = write_page(run).read_text()
    assert NASTY not in text
    assert "&lt;script&gt;" in text
    assert "data:image/png;base64," in text
    assert "0.25" in text
    for outside in ("http://", "https://", "src='/", 'src="/'):
        assert outside not in text


def test_what_a_paper_reports_stands_beside_what_is_measured(run):
    table = (run / "tables/paper.csv").read_text()
    assert table == "name,measured,paper\nfidelity/ratio,0.25,0.46\nelse,,0.8534\n"
    text = write_page(run).read_text()
    assert text.count(">Beside the paper<") == 1
    rows = read(text).rows()
    assert ["fidelity/ratio", "0.25", "0.46", "-0.21"] in rows
    assert ["else", "", "0.8534", ""] in rows


def described(folder, classes, synsets=None, labels=()):
    """A finished run's folder that tells of these classes, all without a test image."""
    images, none = (
        ImageSet(torch.zeros(len(own), 1, 1, 1, dtype=torch.uint8), torch.tensor(own).long())
        for own in (list(labels), [])
    )
    results = Results(folder)
    with results.running(experiment="x", resumed=False):
        results.describe_classes(Splits(images, none, classes, synsets))
    return folder


def test_a_row_tells_of_each_class(tmp_path):
    synsets = ("n02121620", "n02084071", "n01503061")
    described(tmp_path, ("cat", "dog", "bird"), synsets, labels=[1, 0, 1])
    assert (tmp_path / "tables/classes.csv").read_bytes().decode() == (
        "index,class,synset,train,test\n"
        "0,cat,n02121620,1,0\n1,dog,n02084071,2,0\n2,bird,n01503061,0,0\n"
    )


# Each is text, also where it looks like a number, ends a cell or ends a line.
NAMES = ("a,b", '"', "a\nb", "a\rb", "a\r\nb", " a ", "$x$", "007", "1e5", "nan", NASTY)


def test_names_of_classes_are_read_back_as_they_were(tmp_path):
    described(tmp_path, NAMES)
    with (tmp_path / "tables/classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(row["class"] for row in rows) == NAMES
    assert {row["synset"] for row in rows} == {""}
    text = write_page(tmp_path).read_text()
    assert NASTY not in text
    shown = {row[1] for row in read(text).rows() if len(row) == 5}
    for name in ("007", "1e5", "nan"):
        assert name in shown


def test_the_page_counts_images_in_full(tmp_path):
    described(tmp_path, ("cat", "dog"), labels=[0] * 13861)
    assert ["0", "cat", "", "13861", "0"] in read(write_page(tmp_path).read_text()).rows()


def test_without_a_paper_there_is_no_such_table(tmp_path):
    results = Results(tmp_path)
    with results.running(experiment="x", resumed=False):
        results.add_outcomes({"x": Outcome(numbers={"a": 1.0})}, {})
    assert not (tmp_path / "tables/paper.csv").exists()
    assert "Beside the paper" not in write_page(tmp_path).read_text()


def test_a_folder_that_is_no_run_has_no_page(tmp_path):
    with pytest.raises(ValueError, match="is not the folder of a run"):
        write_page(tmp_path)


def test_status_tells_how_a_run_ended(run, tmp_path):
    assert read_status(run)["state"] == "finished"
    for error, state in ((ValueError("no"), "failed"), (KeyboardInterrupt(), "interrupted")):
        results = Results(tmp_path / state)
        with pytest.raises(type(error)), results.running(experiment="e", resumed=False):
            raise error
        status = read_status(results.folder)
        assert status["state"] == state
        assert status["reason"]


def test_a_run_is_not_overwritten(run):
    with (
        pytest.raises(ValueError, match="holds a run already: continue it with resume="),
        Results(run).running(experiment="e", resumed=False),
    ):
        pass
    assert read_status(run)["state"] == "finished"


def test_time_adds_up_over_a_resumed_run(run):
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "seconds": 1000}))
    with Results(run).running(experiment="e", resumed=True):
        pass
    assert read_status(run)["seconds"] >= 1000


def test_explanations_of_several_methods_share_a_file(tmp_path):
    results = Results(tmp_path)
    first = Explanations(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    second = Explanations(torch.rand(1, 1, 2, 2), torch.tensor([1]))
    results.add_explanations("b", first)
    results.add_explanations("a", second)
    found = results.explanations()
    assert set(found) == {"a", "b"}
    assert torch.equal(found["b"].images, first.images)
    assert torch.equal(found["a"].labels, second.labels)
    file = tmp_path / "explanations.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match="is damaged"):
        results.explanations()


def test_a_later_start_replaces_what_an_earlier_one_logged(tmp_path):
    for version, text in enumerate(("step,a/x\n0,1\n1,2\n2,9\n", "step,a/x,b/y\n2,3\n3,4\n3,,7\n")):
        folder = tmp_path / "logs" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(text)
    assert read_curves(tmp_path) == {"a/x": [(0, 1), (1, 2), (2, 3), (3, 4)]}


def test_seeds_of_one_stage_share_a_chart():
    curves = {
        "expert-0/loss": [(0, 1.0)],
        "expert-12/loss": [(0, 2.0)],
        "expert-0/accuracy": [(0, 3.0)],
        "distill/loss": [(0, 4.0)],
        "my-5-method/loss": [(0, 5.0)],
    }
    assert charts(curves) == {
        "expert/loss": {"expert-0": [(0, 1.0)], "expert-12": [(0, 2.0)]},
        "expert/accuracy": {"expert-0": [(0, 3.0)]},
        "distill/loss": {"distill": [(0, 4.0)]},
        "my-5-method/loss": {"my-5-method": [(0, 5.0)]},
    }


def test_a_sheet_has_a_row_for_each_class_that_is_shown():
    images = {"a": torch.rand(2, 1, 4, 4), "b": torch.rand(1, 1, 4, 4)}
    labels = {"a": torch.tensor([0, 2]), "b": torch.tensor([2])}
    figure = sheet(images, labels, ["first", "second", "third", "fourth"])
    words = [text.get_text() for text in figure.texts]
    assert words == ["a", "b", "first", "third"]
    assert len(figure.axes) == 3
