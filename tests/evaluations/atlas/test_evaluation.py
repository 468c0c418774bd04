"""The atlas of networks with known neurons."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load
from support.audited import Columns, attacked_study
from torch import nn

from cwx.data.splits import ImageSet
from cwx.data.taxonomy import Flat, WordNet
from cwx.evaluations.atlas.columns import COLUMNS
from cwx.evaluations.atlas.evaluation import NeuronAtlas
from cwx.evaluations.atlas.unit_pass import UnitTask, measure_units
from cwx.evaluations.neurons.evaluation import Neurons
from cwx.functional.auroc import RunningAuroc, auroc
from cwx.functional.top_activations import spatial_maximum, spatial_mean
from cwx.networks.unit_layers import UnitLayer, UnitLayers
from cwx.networks.unit_outputs import unit_outputs
from cwx.storage.run_files import ATLAS, ATLAS_IMAGES, ATLAS_METADATA
from cwx.study.results import Results
from cwx.training.plan import Plan
from cwx.training.ranks import Ranks

SHARED = {
    "networks": None,
    "layers": None,
    "before_nonlinearity": False,
    "fraction": 1 / 3,
    "activation": spatial_maximum,
    "taxonomy": Flat(),
    "sigma": 1.0,
}


def atlas(**settings):
    return NeuronAtlas(**{**SHARED, "images": 3, **settings})


@pytest.fixture(scope="module")
def study(data, tmp_path_factory):
    return attacked_study(data, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def outcome(study):
    return atlas()(study, {})


@pytest.fixture(scope="module")
def columns(outcome):
    return load(outcome.files[ATLAS])


def activations(study, network, images, layer="conv"):
    """The units' maps, in the network's own way."""
    layers = UnitLayers(network, study.data.image_shape).named([layer], "x")
    with torch.no_grad(), unit_outputs(network, layers) as outputs:
        return outputs(study.data.normalization.from_bytes(images))[layer]


def test_a_row_has_the_measures_of_the_evaluation_of_neurons(study, columns):
    neurons = Neurons(**SHARED, high=0.5, bins=4, noise=False, sheet=None)(study, {})
    for row in neurons.tables["neurons_layers"]:
        of_network = {
            name: columns[f"{row['network']}/{name}"]
            for name in ("lc", "cs1", "cs2", "cs1_permuted", "cs2_permuted")
        }
        for name, values in of_network.items():
            assert len(values) == row["neurons"] == 5
            assert int(values.isnan().sum()) == row["inactive"] == 2
            assert values.nanmean().item() == pytest.approx(row[name])


def test_units_have_the_class_of_their_column(columns):
    for network in ("expert", "fine-tuned"):
        assert columns[f"{network}/unit"].tolist() == [0, 1, 2, 3, 4]
        assert columns[f"{network}/class"].tolist() == [0, 1, 2, -1, -1]
        assert columns[f"{network}/class_fraction"][:3].tolist() == [1, 1, 1]
        assert columns[f"{network}/lc"][:3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("activation", [spatial_maximum, spatial_mean])
@pytest.mark.parametrize("layer", ["conv", "head"])
def test_fires_detection_and_top_images_are_those_of_all_activations(study, activation, layer):
    """From the activations of all images at once."""
    found = load(atlas(layers=[layer], activation=activation)(study, {}).files[ATLAS])
    test, attacked = study.data.splits.test, study.adversarial
    for name in ("expert", "fine-tuned"):
        network = study.first_network(name)
        values = activation(activations(study, network, test.images, layer))
        on_attacked = activation(activations(study, network, attacked.at(torch.arange(48)), layer))
        assert torch.allclose(found[f"{name}/fires"], (values > 0).float().mean(0))
        for unit, label in enumerate(found[f"{name}/class"].tolist()):
            score = found[f"{name}/detection"][unit].item()
            if label < 0:
                assert score != score
                continue
            assert score == pytest.approx(auroc(values[:, unit], test.labels == label), abs=1e-6)
            assert found[f"{name}/detection_error"][unit] == 0
            for kind, of_set, labels in (
                ("real", values, test.labels), ("adversarial", on_attacked, attacked.labels),
            ):  # fmt: skip
                top = of_set[:, unit].sort(descending=True, stable=True)
                images = found[f"{name}/{kind}/images"][unit]
                assert images.tolist() == top.indices[:3].tolist()
                assert torch.allclose(found[f"{name}/{kind}/activations"][unit], top.values[:3])
                assert torch.equal(
                    found[f"{name}/{kind}/labels"][unit].long(), labels[top.indices[:3]]
                )
            targets = found[f"{name}/adversarial/targets"][unit].long()
            assert torch.equal(targets, attacked.targets[images.long()])


def test_a_unit_that_fires_on_nothing_has_a_row_without_values(columns):
    for name in ("lc", "cs1", "detection", "class_fraction"):
        assert columns[f"expert/{name}"][3:].isnan().all()
    assert columns["expert/real/images"][3:].eq(-1).all()
    assert columns["expert/real/labels"][3:].eq(-1).all()
    assert columns["expert/real/activations"][3:].isnan().all()
    assert columns["expert/real/boxes"][3:].eq(0).all()


class Located(nn.Module):
    """A unit that shows one channel of the image at every second pixel, and its negative."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, stride=2)
        self.act = nn.Sigmoid()
        self.head = nn.Linear(2, 3)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0], self.conv.weight[1, 0] = 1, -1
            self.conv.bias.zero_()

    def forward(self, images):
        return self.head(self.act(self.conv(images)).amax((2, 3)))


def located(study, **settings):
    networks = {"located": [Located().eval()]}
    changed = replace(study, evaluation_networks=networks, fine_tuned=())
    return atlas(networks=["located"], **settings)(changed, {})


def test_boxes_are_at_the_highest_value_of_the_map(study):
    """The receptive field of a position is one pixel."""
    tensors = load(located(study).files[ATLAS])
    sets = {"real": study.data.splits.test.images, "adversarial": study.adversarial.at}
    for kind, images in sets.items():
        read = images if callable(images) else images.__getitem__
        for unit, sign in enumerate((1, -1)):
            tops = tensors[f"located/{kind}/images"][unit].long()
            assert (tops >= 0).any()
            for image, box in zip(tops, tensors[f"located/{kind}/boxes"][unit], strict=True):
                if image < 0:
                    continue
                pixels = sign * read(image[None])[0, 0, ::2, ::2].int()
                x0, y0, x1, y1 = box.tolist()
                assert (x1, y1) == (x0 + 1, y0 + 1)
                assert pixels[y0 // 2, x0 // 2] == pixels.max()


def description(outcome):
    """The metadata of the file, which its header holds."""
    content = outcome.files[ATLAS]
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"][ATLAS_METADATA])


def test_a_unit_fires_above_what_its_non_linearity_gives_for_0(study):
    """A sigmoid is above 0 everywhere, and above a half where its argument is above 0."""
    for before in (False, True):
        outcome = located(study, layers=["conv"], before_nonlinearity=before)
        tensors = load(outcome.files[ATLAS])
        images = study.data.normalization.from_bytes(study.data.splits.test.images)
        expected = [(sign * images[:, 0, ::2, ::2] > 0).flatten(1).any(1) for sign in (1, -1)]
        assert tensors["located/fires"].tolist() == pytest.approx(
            [mask.float().mean().item() for mask in expected]
        )
        assert 0 < tensors["located/fires"].min() < 1
        (layer,) = description(outcome)["networks"]["located"]["layers"]
        assert layer["resting"] == (0 if before else 0.5)


class Recurrent(nn.Module):
    """Its convolution runs twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, images):
        return self.conv(self.conv(images).relu()).relu()


def test_of_a_layer_that_runs_twice_the_last_run_counts():
    network, images = Recurrent().eval(), torch.randn(6, 2, 4, 4)
    top = torch.tensor([[5, 1], [0, -1]])
    task = UnitTask(
        layer=UnitLayer(name="conv", functions=("relu",)),
        top=top,
        detection=RunningAuroc(torch.rand(4, 2)),
        classes=torch.tensor([0, 1]),
    )
    batches = [(torch.arange(3), images[:3]), (torch.arange(3, 6), images[3:])]
    labels = torch.arange(6) % 2
    (measures,) = measure_units(network, batches, labels, [task], spatial_maximum, Ranks())
    maps = network(images).detach().flatten(2)
    assert measures.fires.tolist() == (maps.amax(2) > 0).sum(0).tolist()
    assert measures.positions.tolist() == [
        [maps[5, 0].argmax(), maps[1, 1].argmax()],
        [maps[0, 0].argmax(), -1],
    ]


def test_the_images_of_the_page_are_those_of_the_columns_once_each(study, outcome, columns):
    images = load(outcome.files[ATLAS_IMAGES])
    for kind in ("real", "adversarial"):
        shown = torch.cat(
            [columns[f"{n}/{kind}/images"].flatten() for n in ("expert", "fine-tuned")]
        )
        expected = shown[shown >= 0].unique()
        assert torch.equal(images[f"{kind}/indices"], expected)
        test = study.data.splits.test.images
        pixels = study.adversarial.at(expected) if kind == "adversarial" else test[expected]
        assert torch.equal(images[f"{kind}/pixels"], pixels)


def test_the_file_is_read_in_three_lines(outcome, tmp_path):
    Results(tmp_path).add_outcomes({"evaluation.neuron_atlas": outcome}, {})
    with safe_open(tmp_path / ATLAS, framework="np") as file:
        about = json.loads(file.metadata()[ATLAS_METADATA])
        columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert about["columns"] == COLUMNS
    assert set(columns) == {f"{n}/{c}" for n in ("expert", "fine-tuned") for c in COLUMNS}
    (layer,) = about["networks"]["expert"]["layers"]
    assert layer == {"name": "conv", "units": 5, "read_after": "relu", "resting": 0.0}
    assert about["classes"] == ["left", "middle", "right"]


def test_without_attacks_and_fine_tuning_there_is_one_network_without_cs(study):
    outcome = atlas()(replace(study, adversarial=None, fine_tuned=()), {})
    assert load(outcome.files[ATLAS]).keys() == {
        f"expert/{name}" for name in COLUMNS if "cs" not in name and "adversarial" not in name
    }
    assert set(load(outcome.files[ATLAS_IMAGES])) == {"real/indices", "real/pixels"}


def test_a_single_test_image_says_nothing_of_units(study):
    splits = study.data.splits
    one = ImageSet(splits.test.images[:1], splits.test.labels[:1])
    data = OtherTest(study.data, one)
    outcome = atlas()(replace(study, data=data, adversarial=None), {})
    columns = load(outcome.files[ATLAS])
    assert columns["expert/class"].eq(-1).all()
    assert columns["expert/detection"].isnan().all()
    assert load(outcome.files[ATLAS_IMAGES])["real/pixels"].shape == (0, *data.image_shape)


class OtherTest:
    """The data with other test images."""

    def __init__(self, data, test):
        self._data, self.splits = data, replace(data.splits, test=test)

    def __getattr__(self, name):
        return getattr(self._data, name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 0}, "evaluation.neuron_atlas.images is 0: give 1 or more"),
        ({"fraction": 1}, "evaluation.neuron_atlas.fraction is 1: give a fraction"),
        ({"networks": []}, "evaluation.neuron_atlas.networks is empty: name a kind"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        atlas(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ["conf"]}, "evaluation.neuron_atlas.layers: Columns has no layer 'conf'"),
        ({"taxonomy": WordNet()}, "evaluation.neuron_atlas.taxonomy is WordNet, but .*=flat"),
        ({"networks": ["expret"]}, "evaluation.neuron_atlas.networks has 'expret'"),
    ],
)
def test_settings_that_do_not_fit_the_study_are_refused_before_it(data, settings, message):
    plan = Plan(data=data, methods=[], held_out=0, networks={"network": Columns})
    with pytest.raises(ValueError, match=message):
        atlas(**settings).check(plan)
