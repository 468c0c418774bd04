import csv
import json

import pytest
import torch
from support.html_pages import read

from cwx.data.splits import ImageSet, Splits
from cwx.evaluations.outcome import Outcome
from cwx.explanations.drawing import sheet
from cwx.explanations.images import Explanations
from cwx.report.run import RunContents
from cwx.report.run_page import write_page
from cwx.report.training_curves import group_by_quantity, read_curves
from cwx.study.results import Results, read_status

NASTY = '<script>alert("x")</script>'


@pytest.fixture
def run(tmp_path):
    results = Results(tmp_path / "run")
    with results.running(experiment=NASTY, resumed=False):
        labels = torch.tensor([0, 1])
        figure = sheet({"$x_$": torch.rand(2, 1, 4, 4)}, {"$x_$": labels}, [NASTY, "$x^2$"])
        rows = [{"class": NASTY, "value": 0.5}]
        outcome = Outcome(
            metrics={"fidelity/ratio": 0.25, "bad": float("nan")},
            tables={"t": rows},
            figures={"gallery": figure},
        )
        results.add_outcomes({"x": outcome}, {"fidelity/ratio": 0.46, "else": 0.8534})
    return results.folder


def test_the_page_is_self_contained_and_escapes_names(run):
    text = write_page(run).read_text()
    assert NASTY not in text
    assert "&lt;script&gt;" in text
    assert "data:image/png;base64," in text
    assert "0.25" in text
    for outside in ("http://", "https://", "src='/", 'src="/'):
        assert outside not in text


def test_the_papers_values_are_shown_beside_the_measured_ones(run):
    table = (run / "tables/paper.csv").read_text()
    assert table == "name,measured,paper\nfidelity/ratio,0.25,0.46\nelse,,0.8534\n"
    text = write_page(run).read_text()
    assert text.count(">Comparison with the paper<") == 1
    rows = read(text).rows()
    assert ["fidelity/ratio", "0.25", "0.46", "-0.21"] in rows
    assert ["else", "", "0.8534", ""] in rows


def run_with_classes(folder, classes, synsets=None, labels=()):
    """A finished run's folder with these classes, without test images."""
    images, none = (
        ImageSet(torch.zeros(len(own), 1, 1, 1, dtype=torch.uint8), torch.tensor(own).long())
        for own in (list(labels), [])
    )
    results = Results(folder)
    with results.running(experiment="x", resumed=False):
        results.describe_classes(Splits(images, none, classes, synsets))
    return folder


def test_the_table_of_classes_has_a_row_per_class(tmp_path):
    synsets = ("n02121620", "n02084071", "n01503061")
    run_with_classes(tmp_path, ("cat", "dog", "bird"), synsets, labels=[1, 0, 1])
    assert (tmp_path / "tables/classes.csv").read_bytes().decode() == (
        "index,class,synset,train,test\n"
        "0,cat,n02121620,1,0\n1,dog,n02084071,2,0\n2,bird,n01503061,0,0\n"
    )


# Names that look like numbers or contain CSV delimiters.
NAMES = ("a,b", '"', "a\nb", "a\rb", "a\r\nb", " a ", "$x$", "007", "1e5", "nan", NASTY)


def test_class_names_are_read_back_unchanged(tmp_path):
    run_with_classes(tmp_path, NAMES)
    with (tmp_path / "tables/classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(row["class"] for row in rows) == NAMES
    assert {row["synset"] for row in rows} == {""}
    text = write_page(tmp_path).read_text()
    assert NASTY not in text
    shown = {row[1] for row in read(text).rows() if len(row) == 4}
    for name in ("007", "1e5", "nan"):
        assert name in shown


def test_the_page_shows_all_digits_of_image_counts(tmp_path):
    run_with_classes(tmp_path, ("cat", "dog"), labels=[0] * 13861)
    assert ["0", "cat", "13861", "0"] in read(write_page(tmp_path).read_text()).rows()


def test_without_a_paper_there_is_no_such_table(tmp_path):
    results = Results(tmp_path)
    with results.running(experiment="x", resumed=False):
        results.add_outcomes({"x": Outcome(metrics={"a": 1.0})}, {})
    assert not (tmp_path / "tables/paper.csv").exists()
    assert "Comparison with the paper" not in write_page(tmp_path).read_text()


def test_a_folder_that_is_not_a_run_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="is not the folder of a run"):
        write_page(tmp_path)


def test_the_status_has_the_final_state_and_the_reason(run, tmp_path):
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


def test_a_resumed_run_replaces_repeated_steps_of_the_log(tmp_path):
    for version, text in enumerate(("step,a/x\n0,1\n1,2\n2,9\n", "step,a/x,b/y\n2,3\n3,4\n3,,7\n")):
        folder = tmp_path / "logs" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(text)
    assert read_curves(RunContents(folder=tmp_path, status={})) == {
        "a/x": [(0, 1), (1, 2), (2, 3), (3, 4)]
    }


def test_seeds_of_one_stage_share_a_chart():
    curves = {
        "expert-0/loss": [(0, 1.0)],
        "expert-12/loss": [(0, 2.0)],
        "expert-0/accuracy": [(0, 3.0)],
        "distill/loss": [(0, 4.0)],
        "my-5-method/loss": [(0, 5.0)],
    }
    assert group_by_quantity(curves) == {
        "expert/loss": {"expert-0": [(0, 1.0)], "expert-12": [(0, 2.0)]},
        "expert/accuracy": {"expert-0": [(0, 3.0)]},
        "distill/loss": {"distill": [(0, 4.0)]},
        "my-5-method/loss": {"my-5-method": [(0, 5.0)]},
    }


def test_a_sheet_has_a_row_for_each_class_with_images():
    images = {"a": torch.rand(2, 1, 4, 4), "b": torch.rand(1, 1, 4, 4)}
    labels = {"a": torch.tensor([0, 2]), "b": torch.tensor([2])}
    figure = sheet(images, labels, ["first", "second", "third", "fourth"])
    words = [text.get_text() for text in figure.texts]
    assert words == ["a", "b", "first", "third"]
    assert len(figure.axes) == 3


def neuron(trace, **changes):
    """A row of the table ``traces``."""
    row = {
        "trace": trace,
        "network": "fine-tuned",
        "kind": "test",
        "image": "Test image 7",
        "label_class": "ship",
        "target_class": "",
        "predicted_class": "ship",
        "probability": 0.934,
        "evidence": "consistent",
        "layer": "layer4.1",
        "ablation": "zero",
        "flip": 3,
        "removed": 64,
        "channel": 41,
        "difference": 0.2512,
        "predicted_logit": 1.256,
        "true_logit": 1.256,
        "target_logit": "",
        "without_class": "ship",
        "without_probability": 0.5,
        "speaks": "for",
        "lc": 0.55,
        "strongest": 10,
        "first_class": "ship",
        "first_images": 7,
        "second_class": "007",
        "second_images": 3,
        "third_class": "",
        "third_images": "",
    }
    return {**row, **changes}


def traces_page(folder, rows, figures=()):
    """The text of the traces page, with single spaces."""
    results = Results(folder)
    with results.running(experiment=NASTY, resumed=False):
        image = {"x": torch.rand(1, 1, 4, 4)}
        drawn = {name: sheet(image, {"x": torch.tensor([0])}, ["a"]) for name in figures}
        results.add_outcomes({"t": Outcome(tables={"traces": rows}, figures=drawn)}, {})
    write_page(folder)
    return " ".join((folder / "traces.html").read_text().split())


def test_a_trace_is_described_in_text(tmp_path):
    text = traces_page(tmp_path, [neuron(1), neuron(1, channel=5, speaks="weak")], ["trace_1"])
    for words in (
        "1. Test image 7, fine-tuned network",
        "The fine-tuned network predicts <strong>ship</strong> (probability 0.93). "
        "The prediction is correct.",
        "Neurons of layer layer4.1 with the largest prediction difference:",
        "Channel 41 (PD 0.2512). Without it, the probability of ship is 0.50 instead of 0.93.",
        "It adds +1.26 to the logit of ship (predicted). "
        "Top classes: ship (7 of 10), 007 (3 of 10); LC 0.55.",
        "The prediction flips without 3 channels, removed greedily.",
        ">supports the prediction</span>",
        ">weakly supports the prediction</span>",
        "All neurons shown support ship.",
    ):
        assert words in text
    assert "wrong" not in text
    assert text.count("data:image/png;base64,") == 1


def test_contradictory_evidence_is_described(tmp_path):
    changes = {
        "kind": "adversarial",
        "label_class": "bird",
        "target_class": "van",
        "predicted_class": "van",
        "without_class": "bird",
        "evidence": "contradictory",
    }
    rows = [
        neuron(3, **changes, channel=9),
        neuron(3, **changes, channel=4, speaks="against"),
        neuron(4, **changes, channel=2, speaks="against"),
        neuron(4, **changes, channel=6, speaks="against"),
        neuron(5, evidence="inconclusive", speaks="nothing"),
    ]
    text = traces_page(tmp_path, rows)
    for words in (
        "The prediction is wrong: the true class is <strong>bird</strong>.",
        "The target class of the attack is <strong>van</strong>.",
        "is 0.50 instead of 0.93, and the prediction is bird.",
        "Channel 4 contradicts van.",
        "Channels 2, 6 contradict van.",
        "responds to no particular classes",
        "neither clearly support nor contradict ship",
    ):
        assert words in text


def test_a_prediction_that_rests_on_no_channel_is_described(tmp_path):
    blank = dict.fromkeys(list(neuron(1))[10:], "")
    text = traces_page(tmp_path, [neuron(1, **blank, label_class="")])
    assert "No single channel of layer layer4.1 changes this prediction." in text
    assert "correct." not in text
    assert "wrong" not in text


def test_the_traces_page_is_self_contained_and_escapes_names(tmp_path):
    nasty = dict.fromkeys(
        [name for name in neuron(1) if name.endswith("class")] + ["image", "layer", "network"],
        NASTY,
    )
    text = traces_page(tmp_path, [neuron(1, **nasty, evidence="contradictory", speaks="against")])
    assert NASTY not in text
    assert text.count("&lt;script&gt;") > 8
    for outside in ("http://", "https://", "src='/", 'src="/'):
        assert outside not in text


def test_the_page_of_a_run_links_to_its_traces(run, tmp_path):
    traces_page(
        tmp_path / "x", [neuron(n) for n in range(1, 12)], [f"trace_{n:02d}" for n in (1, 11)]
    )
    text = (tmp_path / "x/report.html").read_text()
    assert '<a href="./traces.html">' in text
    # Their figures are on the traces page only.
    assert "data:image/png;base64," not in text
    assert (tmp_path / "x/traces.html").read_text().count("data:image/png;base64,") == 2
    assert "traces.html" not in write_page(run).read_text()
    assert not (run / "traces.html").exists()
