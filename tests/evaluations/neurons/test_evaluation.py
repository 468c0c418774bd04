"""LC, CS1 and CS2 of networks with known neurons."""

import math
from dataclasses import replace

import pytest
import torch
from support import references
from support.attacked import untouched
from support.audited import Columns, attacked_study
from torch import nn

from cwx.data.taxonomy import Flat, WordNet
from cwx.evaluations.neurons.evaluation import Neurons
from cwx.evaluations.neurons.figures import Sheet
from cwx.functional.top_activations import spatial_maximum
from cwx.training.plan import Plan

# Correlation of two classes of a flat taxonomy.
COMMON = math.exp(-2)


@pytest.fixture(scope="module")
def study_with_attack(data, tmp_path_factory):
    return attacked_study(data, tmp_path_factory.mktemp("study"))


def sheet(**settings):
    chosen = {"layer": None, "neurons": 3, "images": 4, "occluder": 2, "stride": 1}
    return Sheet(**{**chosen, "threshold": 0.5, **settings})


def neurons(**settings):
    chosen = {
        "networks": None,
        "layers": None,
        "before_nonlinearity": False,
        # The images of one class.
        "fraction": 1 / 3,
        "activation": spatial_maximum,
        "taxonomy": Flat(),
        "sigma": 1.0,
        "high": 0.5,
        "bins": 4,
        "noise": True,
        "sheet": sheet(),
    }
    return Neurons(**{**chosen, **settings})


@pytest.fixture(scope="module")
def outcome(study_with_attack):
    return neurons()(study_with_attack, {})


def test_cs_shows_whether_neurons_respond_to_labels_or_targets(outcome):
    metrics = outcome.metrics
    assert set(metrics) == {
        f"neurons/{kind}/{of}{name}"
        for kind in ("expert", "fine-tuned")
        for of in ("", "high/")
        for name in ("lc", *(f"cs{n}{of}" for n in (1, 2) for of in ("", "_permuted", "_noise")))
    }
    for kind, content, target in (("expert", "cs2", "cs1"), ("fine-tuned", "cs1", "cs2")):
        assert metrics[f"neurons/{kind}/high/lc"] == pytest.approx(1)
        assert metrics[f"neurons/{kind}/high/{content}"] == pytest.approx(1)
        # The top images are of the two other classes, half each.
        other = COMMON / ((1 + COMMON) / 2) ** 0.5
        assert metrics[f"neurons/{kind}/high/{target}"] == pytest.approx(other)
        # The fourth column is never bright: its neuron does not fire.
        assert metrics[f"neurons/{kind}/lc"] == pytest.approx(1)


@pytest.mark.parametrize("before_nonlinearity", [False, True])
def test_measures_equal_those_of_the_paper_neuron_by_neuron(study_with_attack, before_nonlinearity):
    outcome = neurons(before_nonlinearity=before_nonlinearity)(study_with_attack, {})
    data, adversarial = study_with_attack.data, study_with_attack.adversarial
    test = data.splits.test
    correlation = references.correlation(Flat().distances(data.splits, "x").tolist(), 1.0)

    def fractions(activations, labels):
        order = sorted(range(len(labels)), key=lambda i: (-activations[i], i))
        count = len(labels) // 3
        top = [int(labels[i]) for i in order[:count] if activations[i] > activations[order[count]]]
        return [top.count(label) / len(top) for label in range(3)]

    fires = 4 if before_nonlinearity else 3
    for channel, kind in enumerate(("expert", "fine-tuned")):
        values = {"lc": [], "cs1": [], "cs2": []}
        for column in range(fires):
            real, attacked = (
                data.normalization.from_bytes(images)[:, channel, :, column].sum(1)
                for images in (test.images, adversarial.at(torch.arange(48)))
            )
            if not before_nonlinearity:
                real, attacked = real.relu(), attacked.relu()
            p = fractions(real, test.labels)
            values["lc"].append(references.inner_product(p, p, correlation))
            for name, labels in (("cs1", adversarial.labels), ("cs2", adversarial.targets)):
                values[name].append(references.cosine(p, fractions(attacked, labels), correlation))
        (row,) = (row for row in outcome.tables["neurons_layers"] if row["network"] == kind)
        assert (row["layer"], row["neurons"], row["top"]) == ("conv", 5, 8)
        assert row["inactive"] == 5 - fires
        assert row["read_after"] == ("output" if before_nonlinearity else "relu")
        for name, of_neurons in values.items():
            mean = pytest.approx(sum(of_neurons) / fires)
            assert outcome.metrics[f"neurons/{kind}/{name}"] == mean
            assert row[name] == mean


def test_the_curve_counts_every_responding_neuron_once(study_with_attack):
    outcome = neurons(before_nonlinearity=True)(study_with_attack, {})
    rows = outcome.tables["neurons_curve"]
    for kind in ("expert", "fine-tuned"):
        curve = [row for row in rows if row["network"] == kind]
        assert sum(row["neurons"] for row in curve) == 4
        assert curve == sorted(curve, key=lambda row: row["lc"])
        assert curve[-1]["neurons"] == 3
        for name in ("lc", "cs1", "cs2"):
            mean = sum(row["neurons"] * row[name] for row in curve) / 4
            # LC in the table is the centre of the bin.
            tolerance = 0.125 if name == "lc" else 1e-9
            assert mean == pytest.approx(outcome.metrics[f"neurons/{kind}/{name}"], abs=tolerance)


def test_under_permuted_classes_neurons_respond_to_neither(outcome):
    """Each neuron's top images are of one class; permuted classes are a third each, on average."""
    chance = (1 + 2 * COMMON) / (3 * (1 + 2 * COMMON)) ** 0.5
    for kind in ("expert", "fine-tuned"):
        for name in ("cs1_permuted", "cs2_permuted"):
            assert outcome.metrics[f"neurons/{kind}/{name}"] == pytest.approx(chance, abs=0.1)


def test_the_bins_of_the_curve_are_equal_parts_of_0_to_1(outcome):
    """So that the curves of several runs have the same bins."""
    for row in outcome.tables["neurons_curve"]:
        assert (4 * row["from"]) % 1 == (4 * row["to"]) % 1 == 0
        assert row["to"] - row["from"] == 0.25
        assert row["lc"] == (row["from"] + row["to"]) / 2


def test_noise_of_the_same_norm_leaves_the_other_measures_unchanged(study_with_attack, outcome):
    without = neurons(noise=False)(study_with_attack, {})
    assert without.metrics == {n: v for n, v in outcome.metrics.items() if "noise" not in n}
    for kind in ("expert", "fine-tuned"):
        # The perturbation of a fixed size leads elsewhere if its direction is random.
        assert outcome.metrics[f"neurons/{kind}/high/cs1_noise"] > 0.5
    legends = (f.figures["neurons_curve"].legends[0] for f in (outcome, without))
    with_noise, without_noise = ([t.get_text() for t in it.get_texts()] for it in legends)
    assert [text for text in with_noise if "noise" not in text] == without_noise
    assert with_noise.count("… noise of the same norm") == 2


def test_noise_of_norm_0_gives_the_cs_of_the_images(study_with_attack, tmp_path):
    adversarial = untouched(study_with_attack.data, tmp_path)
    metrics = neurons()(replace(study_with_attack, adversarial=adversarial), {}).metrics
    for name, value in metrics.items():
        if name.endswith("_noise"):
            assert value == metrics[name.removesuffix("_noise")]


def test_the_figure_shows_the_neurons_of_each_bin(outcome):
    bars = outcome.figures["neurons_curve"].axes[2:]
    for axes, kind in zip(bars, ("expert", "fine-tuned"), strict=True):
        rows = [row for row in outcome.tables["neurons_curve"] if row["network"] == kind]
        assert [bar.get_height() for bar in axes.patches] == [row["neurons"] for row in rows]
        assert [bar.get_x() for bar in axes.patches] == [row["from"] for row in rows]


def test_the_closest_classes_are_named(study_with_attack, outcome):
    classes = study_with_attack.data.classes
    assert [
        (row["first_class"], row["second_class"]) for row in outcome.tables["neurons_classes"]
    ] == [(classes[0], classes[1]), (classes[0], classes[2]), (classes[1], classes[2])]
    correlations = [row["correlation"] for row in outcome.tables["neurons_classes"]]
    assert correlations == pytest.approx([COMMON] * 3)


def framed(figure):
    return [axes.spines["left"].get_visible() for axes in figure.axes]


def test_sheets_show_top_images_and_frame_targets_of_the_dominant_class(study_with_attack, outcome):
    top = [row for row in outcome.tables["neurons_top"] if row["network"] == "expert"]
    assert [(row["neuron"], row["class"], row["fraction"]) for row in top] == [
        (neuron, name, 1) for neuron, name in enumerate(study_with_attack.data.classes)
    ]
    assert set(outcome.figures) == {
        "neurons_curve",
        "neurons_sheet_expert",
        "neurons_sheet_fine-tuned",
    }
    expert, fine_tuned = (
        outcome.figures[f"neurons_sheet_{kind}"] for kind in ("expert", "fine-tuned")
    )
    # Rows of four, real above adversarial.
    assert framed(expert) == ([False] * 4 + [True] * 4) * 3
    assert framed(fine_tuned) == [False] * 24
    captions = [axes.get_xlabel() for axes in fine_tuned.axes]
    assert captions[8:12] == ["middle"] * 4
    assert all(caption.startswith("middle→") for caption in captions[12:16])
    assert all(axes.get_xlabel().endswith("→middle") for axes in expert.axes[12:16])


def test_sheets_highlight_the_column_of_the_neuron(study_with_attack):
    """With occluders of one pixel the outline surrounds the neuron's column alone."""
    outcome = neurons(sheet=sheet(occluder=1, images=1))(study_with_attack, {})
    for neuron in range(3):
        axes = outcome.figures["neurons_sheet_expert"].axes[2 * neuron]
        shown = torch.tensor(axes.images[0].get_array().data).int()
        # A pixel of the image has 24 x 24 of the figure; yellow has no blue.
        columns = (shown[..., 2] - shown[..., 0] < -200).nonzero()[:, 1]
        assert len(columns) > 24
        assert columns.min() > 24 * (neuron - 1)
        assert columns.max() < 24 * (neuron + 2)


def test_without_adversarial_images_there_is_only_lc(study_with_attack, outcome):
    real = neurons()(replace(study_with_attack, adversarial=None), {})
    assert real.metrics == {
        name: number for name, number in outcome.metrics.items() if name.endswith("/lc")
    }
    assert set(real.figures) == {"neurons_sheet_expert", "neurons_sheet_fine-tuned"}
    assert framed(real.figures["neurons_sheet_expert"]) == [False] * 12
    for name in ("neurons_layers", "neurons_curve", "neurons_top"):
        assert not [column for column in real.tables[name][0] if column.startswith("cs")]


def test_networks_and_layers_can_be_selected(study_with_attack):
    study = replace(
        study_with_attack,
        evaluation_networks={"robust": [Columns(channel=1).eval()]},
        fine_tuned=(),
    )
    outcome = neurons(networks=["robust"], layers=["relu", "head"], sheet=None)(study, {})
    assert [(row["network"], row["layer"]) for row in outcome.tables["neurons_layers"]] == [
        ("robust", "relu"),
        ("robust", "head"),
    ]
    assert outcome.figures.keys() == {"neurons_curve"}
    assert "neurons_top" not in outcome.tables
    assert [kind.split("/")[1] for kind in neurons()(study, {}).metrics] == ["expert"] * 14


def test_the_sheet_is_of_the_selected_layer(study_with_attack):
    selected = neurons(networks=["expert"], layers=["relu", "head"], sheet=sheet(layer="relu"))
    assert {row["layer"] for row in selected(study_with_attack, {}).tables["neurons_top"]} == {
        "relu"
    }
    last = neurons(networks=["expert"], layers=["relu", "head"])
    assert {row["layer"] for row in last(study_with_attack, {}).tables["neurons_top"]} == {"head"}


def test_a_layer_of_constant_activation_is_inactive(study_with_attack):
    inactive = Columns()
    nn.init.zeros_(inactive.conv.weight)
    study = replace(study_with_attack, evaluation_networks={"inactive": [inactive.eval()]})
    outcome = neurons(networks=["inactive"])(study, {})
    (row,) = outcome.tables["neurons_layers"]
    assert (row["inactive"], row["lc"], row["cs1"]) == (5, "", "")
    assert outcome.metrics == {}
    assert outcome.figures == {}
    assert outcome.tables.keys() == {"neurons_classes", "neurons_layers"}


def test_images_at_the_lowest_activation_do_not_count(study_with_attack):
    """After a ReLU that is 0 for most images, only the others count."""
    sparse = Columns()
    with torch.no_grad():
        # Above 0 only for the two images that are brightest in the first column.
        test = study_with_attack.data.normalization.from_bytes(
            study_with_attack.data.splits.test.images
        )
        level = sparse.conv(test).flatten(1)[:, 0].sort().values[-3:-1].mean()
        sparse.conv.bias = nn.Parameter(torch.tensor([-level, 0.0, 0.0, 0.0, 0.0]))
    study = replace(
        study_with_attack, evaluation_networks={"sparse": [sparse.eval()]}, adversarial=None
    )
    outcome = neurons(networks=["sparse"], layers=["relu"], fraction=0.9)(study, {})
    first = outcome.tables["neurons_top"][0]
    assert (first["neuron"], first["lc"], first["class"]) == (0, 1, "left")
    (row,) = outcome.tables["neurons_layers"]
    assert row["top"] == 22


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 0}, "evaluation.neurons.fraction is 0: give a fraction between 0 and 1"),
        ({"fraction": 1}, "evaluation.neurons.fraction is 1"),
        ({"fraction": float("nan")}, "evaluation.neurons.fraction is nan"),
        ({"high": 2}, "evaluation.neurons.high is 2: give a fraction"),
        ({"bins": 0}, "evaluation.neurons.bins is 0: give 1 or more"),
        ({"networks": []}, "evaluation.neurons.networks is empty: name a kind"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        neurons(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neurons": 0}, "evaluation.neurons.sheet.neurons is 0: give 1 or more"),
        ({"images": 0}, "evaluation.neurons.sheet.images is 0"),
        ({"threshold": 0}, "evaluation.neurons.sheet.threshold is 0: give a fraction above 0"),
        ({"threshold": 1.1}, "evaluation.neurons.sheet.threshold is 1.1"),
    ],
)
def test_bad_settings_of_the_sheet_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sheet(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ["conf"]}, "evaluation.neurons.layers: Columns has no layer 'conf': .* conv"),
        ({"layers": []}, "evaluation.neurons.layers is empty: name a layer of Columns"),
        ({"taxonomy": WordNet()}, "evaluation.neurons.taxonomy is WordNet, but .*=flat for none"),
        ({"sigma": -1}, "evaluation.neurons.sigma: sigma is -1: give a number above 0"),
        ({"sigma": 1e9}, "evaluation.neurons.sigma: a sigma of 1e.09 .* indefinite .*smaller"),
        ({"networks": ["expret"]}, "networks has 'expret', .*choose some of .*expert.*, mlp"),
        (
            {"networks": ["mlp"]},
            "evaluation.neurons.layers is null, and MLP has no convolution: name",
        ),
        ({"sheet": sheet(layer="con")}, "sheet.layer is 'con', which is not audited: .*conv, .*nu"),
        ({"sheet": sheet(occluder=5)}, "sheet.occluder and .* an occluder of 5x5 .* of 1 to 4"),
        ({"sheet": sheet(stride=3)}, "sheet.stride: .* leave pixels uncovered"),
    ],
)
def test_check_refuses_bad_settings(study_with_attack, subject, settings, message):
    plan = Plan(
        data=study_with_attack.data,
        methods=[],
        held_out=0,
        networks={"network": Columns, "mlp": subject.factory},
    )
    neurons().check(plan)
    neurons(networks=["fine-tuned", "clean"], sheet=None).check(plan)
    with pytest.raises(ValueError, match=message):
        neurons(**settings).check(plan)


def test_a_missing_network_is_refused(study_with_attack):
    with pytest.raises(
        ValueError, match="no network called 'held-out'.* one of expert, fine-tuned"
    ):
        neurons(networks=["held-out"])(study_with_attack, {})
