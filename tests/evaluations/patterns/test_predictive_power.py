import math
from copy import copy
from dataclasses import replace
from statistics import fmean, pstdev

import pytest
import torch

from cwx.data.corruption import PlantedBackdoor
from cwx.data.splits import ImageSet
from cwx.evaluations.patterns.metric import PredictivePowerMetric
from cwx.evaluations.patterns.predictive_power import PredictivePower
from cwx.evaluations.patterns.probe import Predictions
from cwx.evaluations.patterns.selection import Candidate, CandidateScore, best_by_class
from cwx.explanations.patterns import Patterns, Perturbations
from cwx.functional.mask_search import binarise
from cwx.functional.rng import stream
from cwx.training.plan import Plan


def patterns(subject, explains="expert"):
    """Two canvases a class: one that is bright in the column of the class, and a black one."""
    count, (_, height, width) = len(subject.data.classes), subject.data.image_shape
    canvases = torch.zeros(2 * count, *subject.data.image_shape)
    masks = torch.rand(2 * count, height, width, generator=stream(1))
    for label in range(count):
        canvases[2 * label + 1, :, :, label] = 1
        masks[2 * label + 1, :, label] += 1
    searched = torch.zeros(24, dtype=torch.bool)
    searched[::3] = True
    labels = torch.arange(count).repeat_interleave(2)
    return Patterns(
        explains=explains, masks=masks, canvases=canvases, labels=labels, searched=searched
    )


@pytest.fixture(scope="module")
def outcome(subject):
    return PredictivePower(sizes=[0.25, 0.5], gammas=[], images=None, canvas_choice="lowest_loss")(
        subject, {"iscp": patterns(subject)}
    )


def losses_and_powers(subject, network, source, size):
    """Each pattern's loss on D_n and its power, image by image."""
    test, normalize = subject.data.splits.test, subject.data.normalization.normalize
    unit = test.images.float() / 255
    masks = binarise(source.masks, round(size * 16), stream(0))
    clean = network(normalize(unit)).argmax(1)
    for mask, canvas, label in zip(masks, source.canvases, source.labels.tolist(), strict=True):
        carrying = torch.where(mask, canvas, unit)
        probabilities = network(normalize(carrying)).double().softmax(1)[:, label]
        hit = network(normalize(carrying)).argmax(1) == label
        other = test.labels != label
        powers = []
        for among in (~source.searched, torch.ones(24, dtype=torch.bool)):
            success = hit[among & other].double().mean()
            powers.append((success / (clean[~other] == label).double().mean()).item())
        loss = -probabilities.log()[source.searched & other].mean().item()
        yield loss, *powers


@pytest.mark.parametrize("size", [0.25, 0.5])
def test_powers_equal_those_of_the_formula(subject, outcome, size):
    network, source = subject.trained_network(subject.trajectories[0]), patterns(subject)
    expected = list(losses_and_powers(subject, network, source, size))
    rows = [
        row for row in outcome.tables["predictive_power_canvases"] if row["size"] == f"{size:g}"
    ]
    for row, (loss, power, whole) in zip(rows, expected, strict=True):
        assert row["loss"] == pytest.approx(loss, rel=1e-4)
        assert row["power"] == pytest.approx(power)
        assert row["power_whole"] == pytest.approx(whole)
    assert [row["canvas"] for row in rows] == [0, 1] * 3
    best = [min(expected[2 * label : 2 * label + 2], key=lambda row: row[0]) for label in range(3)]
    means = outcome.metrics
    assert means[f"predictive_power/power/iscp/{size:g}"] == pytest.approx(
        fmean(power for _, power, _ in best)
    )
    assert means[f"predictive_power/whole/iscp/{size:g}"] == pytest.approx(
        fmean(w for _, _, w in best)
    )
    assert means[f"predictive_power/power/iscp/{size:g}/std"] == pytest.approx(
        pstdev(p for _, p, _ in best)
    )
    assert means[f"predictive_power/power/iscp/{size:g}/class/right"] == pytest.approx(best[2][1])


def test_the_column_of_a_class_is_its_best_canvas(outcome):
    assert [
        row["canvas"] for row in outcome.tables["predictive_power"] if row["size"] == "0.25"
    ] == [1, 1, 1]
    assert outcome.metrics["predictive_power/power/iscp/0.5"] > 0.5
    assert set(outcome.figures) == {
        "predictive_power_patterns", "predictive_power", "pattern_examples_iscp",
    }  # fmt: skip


@pytest.mark.parametrize("choice", ["lowest_loss", "highest_power"])
def test_the_canvas_of_a_class_is_the_best_by_the_chosen_criterion(subject, choice):
    source = patterns(subject)
    # The loss is on the images of the search alone: the black canvas, if they are few, may win.
    source.searched[:] = False
    source.searched[:4] = True
    evaluation = PredictivePower(sizes=[0.25, 0.5], gammas=[], images=None, canvas_choice=choice)
    tables = evaluation(subject, {"iscp": source}).tables
    for row in tables["predictive_power"]:
        canvases = [
            canvas
            for canvas in tables["predictive_power_canvases"]
            if (canvas["size"], canvas["class"]) == (row["size"], row["class"])
        ]
        column, best = ("loss", min) if choice == "lowest_loss" else ("power_whole", max)
        assert row[column] == best(canvas[column] for canvas in canvases)


def score(canvas, *, loss, success, label=0):
    nothing = torch.empty(0)
    return CandidateScore(
        candidate=Candidate(
            label=label, canvas=canvas, tied=0, attach=lambda images: images, picture=nothing
        ),
        predictions=Predictions(classes=nothing, loss=nothing),
        loss=loss,
        success=success,
    )


# Loss and success of each canvas, and the canvas of lowest loss and of highest power.
CANVASES = [
    ([(1.0, 0.2), (0.5, 0.1)], 1, 0),
    ([(1.0, 0.1), (0.5, 0.2)], 1, 1),
    ([(1.0, 0.0), (0.5, 0.0), (0.7, 0.0)], 1, 1),
    ([(0.5, 0.3), (0.5, 0.3)], 0, 0),
    ([(0.5, 0.1), (0.5, 0.3)], 0, 1),
]


@pytest.mark.parametrize(("canvases", "lowest", "highest"), CANVASES)
def test_a_tie_goes_to_the_lower_loss_and_then_to_the_first_canvas(canvases, lowest, highest):
    scores = [
        score(canvas, loss=loss, success=success, label=label)
        for label in (2, 0)
        for canvas, (loss, success) in enumerate(canvases)
    ]
    for choice, expected in (("lowest_loss", lowest), ("highest_power", highest)):
        best = [best.candidate for best in best_by_class(scores, choice)]
        assert [(c.label, c.canvas) for c in best] == [(2, expected), (0, expected)]


def test_a_backdoored_study_has_the_power_of_the_target_and_of_others(subject):
    images = replace(subject.data.corrupted, backdoor=PlantedBackdoor(trigger=None, target=1))
    data = copy(subject.data)
    data.corrupted = images
    evaluation = PredictivePower(
        sizes=[0.25], gammas=[], images=None, canvas_choice="highest_power"
    )
    outcome = evaluation(replace(subject, data=data), {"iscp": patterns(subject)})
    rows = outcome.tables["predictive_power"]
    for kind, column in (("power", "power"), ("whole", "power_whole")):
        name = f"predictive_power/{kind}/iscp/0.25"
        assert outcome.metrics[f"{name}/target"] == rows[1][column]
        others = fmean([rows[0][column], rows[2][column]])
        assert outcome.metrics[f"{name}/others"] == pytest.approx(others)
    assert "predictive_power/transfer/iscp/0.25/held-out/target" in outcome.metrics


@pytest.mark.parametrize("images_of_the_class", [True, False])
def test_the_accuracy_is_on_all_images_of_the_class(subject, images_of_the_class):
    """D_n has no images of the class: that the search could read them changes no power."""
    source, labels = patterns(subject), subject.data.splits.test.labels
    source.searched[labels == 0] = images_of_the_class
    source.searched[labels != 0] = torch.arange(int((labels != 0).sum())) % 2 == 0
    evaluation = PredictivePower(sizes=[0.25], gammas=[], images=None, canvas_choice="lowest_loss")
    row = evaluation(subject, {"iscp": source}).tables["predictive_power"][0]
    network = subject.trained_network(subject.trajectories[0])
    unit = subject.data.splits.test.images[labels == 0].float() / 255
    clean = network(subject.data.normalization.normalize(unit)).argmax(1) == 0
    assert row["accuracy"] == pytest.approx(clean.double().mean().item())
    assert row["power"] == pytest.approx(row["success"] / row["accuracy"])


def test_patterns_are_evaluated_on_every_network(subject, outcome):
    rows = {
        (row["network"], row["class"]): row
        for row in outcome.tables["predictive_power_transfer"]
        if row["size"] == "0.5"
    }
    assert set(rows) == {
        (network, name) for network in ("expert", "held-out") for name in subject.data.classes
    }
    held_out = subject.trained_network(subject.held_out[0])
    expected = list(losses_and_powers(subject, held_out, patterns(subject), 0.5))
    row = rows["held-out", "left"]
    assert row["power"] == pytest.approx(expected[1][1])
    home = next(
        r for r in outcome.tables["predictive_power"] if r["class"] == "left" and r["size"] == "0.5"
    )
    assert row["explained"] == home["power"]
    assert row["rate"] == pytest.approx(row["power"] / row["explained"])
    assert row["printed_rate"] == pytest.approx(row["explained"] / row["power"])
    held_out_rows = [rows["held-out", name] for name in subject.data.classes]
    ratio = sum(r["power"] for r in held_out_rows) / sum(r["explained"] for r in held_out_rows)
    assert outcome.metrics["predictive_power/transfer/iscp/0.5/held-out"] == pytest.approx(ratio)


@pytest.mark.parametrize("inside", [0, 2])
def test_the_loss_that_chooses_is_on_the_images_of_the_search(subject, inside):
    """Also where few of them are measured, or none: those measured must not choose."""
    test = subject.data.splits.test
    measured = test.spread_indices(9)
    searched = torch.ones(len(test), dtype=torch.bool)
    searched[measured[inside:]] = False
    one = patterns(subject)
    source = replace(
        one,
        masks=torch.rand(6, *one.masks.shape[1:], generator=stream(5)),
        canvases=torch.rand(6, *one.canvases.shape[1:], generator=stream(6)),
        labels=torch.arange(3).repeat_interleave(2),
        searched=searched,
    )
    evaluate = PredictivePower(sizes=[0.25], gammas=[], images=9, canvas_choice="lowest_loss")
    tables = evaluate(subject, {"iscp": source}).tables
    network, unit = subject.first_network("expert"), test.images.float() / 255
    for row, mask, canvas, label in zip(
        tables["predictive_power_canvases"], binarise(source.masks, 4, stream(0)),
        source.canvases, source.labels.tolist(), strict=True,
    ):  # fmt: skip
        carrying = torch.where(mask, canvas, unit[searched & (test.labels != label)])
        logits = network(subject.data.normalization.normalize(carrying))
        target = torch.full((len(logits),), label)
        # Of at most nine images of the search.
        losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        chosen = ImageSet(carrying, test.labels[searched & (test.labels != label)])
        expected = losses[chosen.spread_indices(9)].mean().item()
        assert row["loss"] == pytest.approx(expected, rel=1e-5)
    for label, row in enumerate(tables["predictive_power"]):
        own = tables["predictive_power_canvases"][2 * label : 2 * label + 2]
        assert row["loss"] == min(canvas["loss"] for canvas in own)


def test_the_explained_network_is_not_among_those_of_its_kind(subject):
    """The ratio of a network to itself is 1, and would raise the mean over its kind."""
    expert, (held_out,) = subject.trajectories[0], subject.held_out
    both = replace(subject, trajectories=[expert, held_out])
    evaluation = PredictivePower(sizes=[0.25], gammas=[], images=None, canvas_choice="lowest_loss")
    sources = {"iscp": patterns(both), "iscp_other": patterns(both, explains="held-out")}
    rows = evaluation(both, sources).tables["predictive_power_transfer"]
    networks = {
        (r["source"], r["network"]): (r["networks"], r["power"])
        for r in rows
        if r["class"] == "left"
    }
    assert set(networks) == {("iscp", "expert"), ("iscp", "held-out"), ("iscp_other", "expert")}
    assert networks["iscp", "expert"] == networks["iscp", "held-out"]
    assert networks["iscp_other", "expert"][0] == 2
    alone = replace(subject, trajectories=[expert], held_out=[])
    assert "predictive_power_transfer" not in evaluation(alone, {"iscp": patterns(alone)}).tables


def test_patterns_are_evaluated_on_the_network_that_they_explain(subject):
    source = patterns(subject, explains="held-out")
    metrics = PredictivePower(sizes=[0.25], gammas=[], images=None, canvas_choice="lowest_loss")(
        subject, {"x": source}
    ).metrics
    expected = list(
        losses_and_powers(subject, subject.trained_network(subject.held_out[0]), source, 0.25)
    )
    assert metrics["predictive_power/power/x/0.25/class/middle"] == pytest.approx(expected[3][1])


def test_fewer_test_images_are_evenly_spaced(subject):
    source = patterns(subject)
    outcome = PredictivePower(sizes=[0.25], gammas=[], images=12, canvas_choice="lowest_loss")(
        subject, {"x": source}
    )
    network = subject.trained_network(subject.trajectories[0])
    test = subject.data.splits.test
    unit = test.images[::2].float() / 255
    mask = binarise(source.masks, 4, stream(0))[1]
    carrying = subject.data.normalization.normalize(torch.where(mask, source.canvases[1], unit))
    hit = network(carrying).argmax(1) == 0
    others = (test.labels != 0)[::2] & ~source.searched[::2]
    row = outcome.tables["predictive_power_canvases"][1]
    assert row["success"] == pytest.approx(hit[others].double().mean().item())


def test_perturbations_are_not_divided_by_the_accuracy(subject):
    deltas = torch.zeros(6, *subject.data.image_shape)
    for row in range(6):
        deltas[row, :, :, row % 3] = 0.1 if row < 3 else 0.6
    radii = torch.tensor([0.1] * 3 + [0.6] * 3)
    source = Perturbations(
        explains="expert",
        deltas=deltas,
        labels=torch.arange(3).repeat(2),
        epsilons=radii,
        searched=torch.arange(24) % 2 == 0,
    )
    outcome = PredictivePower(sizes=[0.25], gammas=[], images=None, canvas_choice="lowest_loss")(
        subject, {"universal": source}
    )
    assert {row["size"] for row in outcome.tables["predictive_power"]} == {"25.5", "153"}
    rows = [row for row in outcome.tables["predictive_power"] if row["size"] == "153"]
    assert [row["power"] for row in rows] == [row["success"] for row in rows]
    assert (
        outcome.metrics["predictive_power/power/universal/153"]
        > outcome.metrics["predictive_power/power/universal/25.5"]
    )
    network, data = subject.trained_network(subject.trajectories[0]), subject.data
    unit = (data.splits.test.images.float() / 255 + deltas[3]).clamp(0, 1)
    hit = network(data.normalization.normalize(unit)).argmax(1) == 0
    others = data.splits.test.labels != 0
    outside = others & ~source.searched
    assert rows[0]["success"] == pytest.approx(hit[outside].double().mean().item())
    # The images of the search never stand in for others: without others there is no value.
    whole = replace(source, searched=torch.ones(24, dtype=torch.bool))
    searched_all = PredictivePower(
        sizes=[0.25], gammas=[], images=None, canvas_choice="lowest_loss"
    )(subject, {"universal": whole, "iscp": patterns(subject)})
    kinds = ("power", "whole", "transfer")
    names = {kind: f"predictive_power/{kind}/universal/" for kind in kinds}
    present = {
        kind: any(name.startswith(prefix) for name in searched_all.metrics)
        for kind, prefix in names.items()
    }
    assert present == {"power": False, "whole": True, "transfer": False}
    of_universal = [
        row for row in searched_all.tables["predictive_power"] if row["source"] == "universal"
    ]
    assert {(row["power"], row["success"]) for row in of_universal} == {("", "")}
    expected = hit[others].double().mean().item()
    row = next(row for row in of_universal if row["size"] == "153")
    assert row["power_whole"] == pytest.approx(expected)
    networks = searched_all.tables["predictive_power_transfer"]
    assert {row["source"] for row in networks} == {"iscp"}


def test_patterns_of_a_search_on_all_images_have_no_power_outside_it(subject):
    source = replace(patterns(subject), searched=torch.ones(24, dtype=torch.bool))
    evaluation = PredictivePower(sizes=[0.25], gammas=[], images=None, canvas_choice="lowest_loss")
    outcome = evaluation(subject, {"iscp": source})
    kinds = {name.split("/")[1] for name in outcome.metrics}
    assert kinds == {"whole", "canvases"}
    assert {row["power"] for row in outcome.tables["predictive_power"]} == {""}
    assert "predictive_power_transfer" not in outcome.tables
    assert {"predictive_power", "predictive_power_patterns"} < set(outcome.figures)


def test_a_class_without_images_outside_the_search_is_left_out_of_the_mean(subject):
    source, labels = patterns(subject), subject.data.splits.test.labels
    source.searched[:] = labels != 1
    evaluation = PredictivePower(sizes=[0.25], gammas=[], images=None, canvas_choice="lowest_loss")
    outcome = evaluation(subject, {"iscp": source})
    rows = outcome.tables["predictive_power"]
    assert [row["power"] == "" for row in rows] == [False, True, False]
    name = "predictive_power/power/iscp/0.25"
    assert outcome.metrics[name] == pytest.approx(fmean([rows[0]["power"], rows[2]["power"]]))
    assert outcome.metrics[f"{name}/left_out"] == 1
    assert f"{name}/class/{rows[1]['class']}" not in outcome.metrics
    transfer = outcome.tables["predictive_power_transfer"]
    assert rows[1]["class"] not in {row["class"] for row in transfer}


def test_the_metric_accumulates_over_batches():
    labels, clean = torch.tensor([0, 1, 1, 2, 0, 1]), torch.tensor([0, 1, 0, 2, 1, 1])
    attached = torch.tensor([1, 1, 1, 0, 1, 0])
    whole, parts = PredictivePowerMetric(target=1), PredictivePowerMetric(target=1)
    whole.update(attached, clean, labels)
    for piece in (slice(0, 2), slice(2, 6)):
        parts.update(attached[piece], clean[piece], labels[piece])
    assert whole.compute() == parts.compute() == (2 / 3) / (2 / 3)
    parts.reset()
    parts.update(attached[:1], clean[:1], labels[:1])
    assert math.isnan(parts.accuracy)


def test_studies_that_do_not_fit_are_refused(subject):
    plan = Plan(data=subject.data, methods=["x"], held_out=0, leaves={"x": Patterns})
    with pytest.raises(ValueError, match="a pattern of 0.01 of 4x4 pixels has 0 pixels"):
        PredictivePower(sizes=[0.01], gammas=[], images=None, canvas_choice="lowest_loss").check(
            plan
        )
    PredictivePower(sizes=[0.1], gammas=[], images=None, canvas_choice="lowest_loss").check(plan)
    without = Plan(data=subject.data, methods=["x"], held_out=0)
    with pytest.raises(ValueError, match="needs a method that leaves patterns"):
        PredictivePower(sizes=[0.1], gammas=[], images=None, canvas_choice="lowest_loss").check(
            without
        )


def above(subject, source, gammas, **settings):
    evaluation = PredictivePower(
        sizes=[0.25], gammas=gammas, images=None, canvas_choice="lowest_loss", **settings
    )
    return evaluation(subject, {"iscp": source})


def test_a_threshold_that_keeps_the_pixels_of_a_size_has_its_powers(subject):
    source = patterns(subject)
    # The fourth and fifth highest values of 16 are 0.8 and 0.6.
    ranks = source.masks.flatten(1).argsort(1).argsort(1).float()
    values = torch.where(ranks >= 12, 0.8 + 0.01 * (ranks - 12), 0.6 - 0.01 * (11 - ranks))
    source = replace(source, masks=values.view_as(source.masks))
    outcome = above(subject, source, [0.7])
    rows = {size: [] for size in ("0.25", "gamma-0.7")}
    for row in outcome.tables["predictive_power_canvases"]:
        rows[row["size"]].append({**row, "size": ""})
    assert rows["0.25"] == rows["gamma-0.7"]
    names = [name for name in outcome.metrics if "/0.25" in name]
    assert names
    for name in names:
        assert outcome.metrics[name.replace("/0.25", "/gamma-0.7")] == outcome.metrics[name]
    assert outcome.metrics["predictive_power/area/iscp/gamma-0.7"] == 0.25
    assert outcome.metrics["predictive_power/area/iscp/gamma-0.7/std"] == 0


def test_the_size_above_a_threshold_is_in_the_table(subject):
    source = patterns(subject)
    tables = above(subject, source, [0.5, 0.9]).tables
    for row in tables["predictive_power_canvases"]:
        if row["size"].startswith("gamma"):
            index = 2 * subject.data.classes.index(row["class"]) + row["canvas"]
            gamma = float(row["size"].removeprefix("gamma-"))
            assert row["area"] == (source.masks[index] > gamma).double().mean().item()
        else:
            assert row["area"] == 0.25


@pytest.mark.parametrize(
    ("low", "high", "line"),
    [
        (0.2, 0.4, "iscp: gamma 0.5 keeps nothing of 2 masks of class 'middle' (values 0.2 to 0.4"),
        (0.6, 0.9, "iscp: gamma 0.5 keeps all of 2 masks of class 'middle' (values 0.6 to 0.9"),
    ],
)
def test_a_threshold_that_keeps_nothing_or_everything_of_a_class_is_told(
    subject, low, high, line, caplog
):
    source = patterns(subject)
    source.masks[2:4] = torch.linspace(low, high, 16).view(4, 4)
    metrics = above(subject, source, [0.5]).metrics
    assert caplog.text.count("keeps") == 1
    assert line in caplog.text
    assert metrics["predictive_power/power/iscp/gamma-0.5/left_out"] == 1
    assert "predictive_power/power/iscp/gamma-0.5/class/middle" not in metrics
    assert "predictive_power/power/iscp/0.25/class/middle" in metrics


def test_a_threshold_above_all_masks_leaves_the_sizes(subject, caplog):
    source = patterns(subject)
    source.masks.clamp_(0, 0.5)
    metrics = above(subject, source, [0.6]).metrics
    assert caplog.text.count("keeps nothing of 2 masks of class") == 3
    assert not any("gamma" in name for name in metrics)


def test_a_canvas_whose_mask_a_threshold_empties_is_left_out(subject, caplog):
    source = patterns(subject)
    source.masks[3] = 0.1
    tables = above(subject, source, [0.5]).tables
    assert "keeps nothing of 1 mask of class 'middle' (values 0.1 to 0.1)" in caplog.text
    left = [
        (row["class"], row["canvas"])
        for row in tables["predictive_power_canvases"]
        if row["size"] == "gamma-0.5"
    ]
    assert ("middle", 0) in left
    assert ("middle", 1) not in left
    assert len(left) == 5
