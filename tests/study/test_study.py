"""Which experts a study takes."""

import json
import logging
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from support.attacked import swapped
from support.builders import BlobsToTest, experts, image_data, small_convnet, small_mlp
from support.studies import CONFIGURATION, accuracies, chosen_experts, reach, study, subject_of

from cwx.data.corruption import LabelNoise, NoCorruption
from cwx.data.splits import ImageSet
from cwx.data.taxonomy import Flat
from cwx.evaluations.accuracy import Accuracy
from cwx.evaluations.adversarial.adversarial_detection import AdversarialDetection
from cwx.evaluations.adversarial.adversarial_set import AdversarialSetAccuracy
from cwx.evaluations.adversarial.representations import Representations
from cwx.evaluations.backdoor.suspects import Suspicion
from cwx.evaluations.outcome import Outcome
from cwx.evaluations.traces.evaluation import Traces
from cwx.functional.class_gaussians import LedoitWolf
from cwx.functional.label_noise import Uniform
from cwx.functional.representation_distance import flat
from cwx.methods.distill import Distill
from cwx.methods.gradcam import GradCamRegions
from cwx.networks.eval_mode import accuracy
from cwx.storage.recording import Recording
from cwx.storage.trajectories import Trajectory
from cwx.study.results import Results
from cwx.study.steps.adversary import Ensemble
from cwx.study.steps.dataset_construction import Constructed
from cwx.training.experts import Early


def test_a_study_that_fails_leaves_its_page_and_its_error(subject, tmp_path):
    subject_of(study(tmp_path / "store", subject.trajectories[0].path), tmp_path)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "It failed" in page
    assert "Reached" in page


def buffer(path, network, trajectories):
    names = [name for name, _ in network.named_parameters()]
    states = [[t.state(epoch) for epoch in t.recorded] for t in trajectories]
    torch.save([[[s[name] for name in names] for s in expert] for expert in states], path)
    return path


def test_folders_and_buffers_are_taken_in_order(subject, tmp_path):
    first, second = subject.trajectories
    path = buffer(tmp_path / "two.pt", subject.network(), [second, first])
    found = subject_of(study(tmp_path / "store", first.path, path), tmp_path).trajectories
    assert found[0].path == first.path
    assert [t.path.parent for t in found[1:]] == [tmp_path / "store"] * 2
    for recorded, given in zip(found, (first, second, first), strict=True):
        for epoch in range(5):
            a, b = recorded.state(epoch), given.state(epoch)
            assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("entry", ["none.pt", "none"])
def test_a_missing_file_is_named_before_an_expert_is_trained(tmp_path, entry):
    with pytest.raises(ValueError, match=str(tmp_path / entry)):
        study(tmp_path / "store", tmp_path / entry, held_out=[1]).run(
            Results(tmp_path / "run"),
            CONFIGURATION,
            experiment="x",
            resumed=False,
        )


NOISE = LabelNoise(kind=Uniform(), rate=0.5, seed=0)


def test_training_images_are_corrupted_before_anything_is_trained(subject, tmp_path, caplog):
    made = study(tmp_path / "store", subject.trajectories[0].path, corruption=NOISE)
    with caplog.at_level(logging.INFO, "cwx"):
        seen = subject_of(made, tmp_path).data
    expected = NOISE(subject.data.splits.train, subject.data.classes)
    assert torch.equal(seen.splits.train.labels, expected.images.labels)
    assert torch.equal(seen.clean.labels, subject.data.splits.train.labels)
    kept = load_file(tmp_path / "run" / "corrupted.safetensors")
    assert torch.equal(kept["is_corrupted"], expected.is_corrupted)
    count = int(expected.is_corrupted.sum())
    lines = [message for message in caplog.messages if "corrupted" in message]
    assert lines == [f"{count} of 60 training images are corrupted, a share of {count / 60:.4g}"]


@pytest.mark.parametrize("corruption", [NoCorruption(), NOISE], ids=["none", "noise"])
def test_the_classes_are_there_before_anything_is_trained(subject, tmp_path, corruption):
    data = subject.data
    made = study(tmp_path / "store", subject.trajectories[0].path, corruption=corruption)
    subject_of(made, tmp_path)
    train = corruption(data.splits.train, data.classes).images.labels.bincount().tolist()
    assert (tmp_path / "run" / "tables" / "classes.csv").read_text().splitlines() == [
        "index,class,synset,train,test",
        *(f"{i},{name},,{train[i]},8" for i, name in enumerate(data.classes)),
    ]


@pytest.mark.parametrize("corruption", [NoCorruption(), NOISE], ids=["none", "noise"])
def test_the_effective_rate_is_among_the_numbers(subject, tmp_path, corruption):
    made = study(tmp_path / "store", subject.trajectories[0].path, corruption=corruption)
    made.method = {}
    made.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    is_corrupted = corruption(subject.data.splits.train, subject.data.classes).is_corrupted
    assert metrics == {"corruption/effective_rate": is_corrupted.double().mean().item()}
    assert (tmp_path / "run" / "corrupted.safetensors").exists() == bool(is_corrupted.any())


def test_the_figures_of_the_paper_ride_along(subject, tmp_path):
    paper = {"corruption/effective_rate": 0.05, "other": 1}
    made = study(tmp_path / "store", subject.trajectories[0].path, paper=paper)
    made.method = {}
    made.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    table = (tmp_path / "run" / "tables" / "paper.csv").read_text().splitlines()
    assert table == ["name,measured,paper", "corruption/effective_rate,0.0,0.05", "other,,1"]


class Asked:
    """A method with nothing to fit."""

    def __init__(self, *, subject, seed, stage):
        self.subject = subject

    def explanations(self):
        return self.subject.real(1)


def test_a_method_with_nothing_to_fit_is_only_asked(subject, tmp_path):
    made = study(tmp_path / "store", subject.trajectories[0].path)
    made.method, results = {"asked": Asked}, Results(tmp_path / "run")
    made.run(results, CONFIGURATION, experiment="x", resumed=False)
    found = results.explanations()["asked"]
    assert torch.equal(found.images, subject.real(1).images)
    assert not (tmp_path / "run" / "checkpoints").exists()


class Narrow(torch.nn.Module):
    """One logit too few, whatever is asked for."""

    def __init__(self, *, num_classes, **shape):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, images):
        return torch.zeros(len(images), self.num_classes - 1)


Ratios = partial(Representations, layer=None, pooling=flat, per_class=None)


def attack_on(*members):
    return Ensemble(
        members=members or None, targets=2, images=None, weight=0.001, scale=255, step=20, steps=8,
        batch_size=10,
    )  # fmt: skip


class Refuses:
    def check(self, plan):
        raise ValueError(f"refused: {plan.methods}, {plan.held_out}, {len(plan.data.classes)}")

    def __call__(self, subject, sources):
        raise AssertionError("it was refused")


def cannot_train(name):
    def recipe(*, stages, **_):
        if stages == [name]:
            raise ValueError(f"the recipe cannot train {name}")

    return recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation_networks": {"expert": small_mlp}},
            "a evaluation network is called 'expert'.*another name",
        ),
        (
            {"method": {"probe": partial(Distill, span=2, start_min=0, start_max=9)}},
            r"segment \[9, 11\] exceeds the 4 epochs of recipe.epochs: lower method.probe.start",
        ),
        (
            {
                "method": {
                    "probe": partial(GradCamRegions, explains="expert", classes=None, layer=None)
                }
            },
            "no layer of MLP gives maps",
        ),
        (
            {"evaluation_networks": {"narrow": Narrow}},
            r"narrow gives outputs of shape \(2, 2\).* 3 classes",
        ),
        ({"network": Narrow}, "network gives outputs of shape"),
        (
            {"method": {"probe": partial(reach, explains="clean")}},
            "method.probe.explains is 'clean', .* one of expert, held-out, or give experts.clean a",
        ),
        ({"evaluation": {"any": Refuses()}}, r"refused: \['probe'\], 1, 3"),
        ({"recipe": cannot_train("network")}, "the recipe cannot train network"),
        (
            {"evaluation_networks": {"mlp": small_mlp}, "recipe": cannot_train("mlp")},
            "the recipe cannot train mlp",
        ),
        (
            {"evaluation": {"representations": Ratios(networks=None)}},
            "evaluation.representations needs .* choose adversary=ensemble",
        ),
        (
            {"adversary": lambda *_: None, "evaluation": {"x": Ratios(networks=["fine-tuned"])}},
            "networks has 'fine-tuned', and this study has no such .*: give some of expert, held-",
        ),
        (
            {
                "adversary": lambda *_: None,
                "fine_tuning": lambda *_: (),
                "evaluation": {"x": Ratios(networks=["expert", "held-out", "fine-tuned", "clean"])},
            },
            "networks has 'clean', .* some of expert, held-out, fine-tuned, or null",
        ),
        (
            {"evaluation": {"adversarial_set": AdversarialSetAccuracy(shown=1, amplify=1)}},
            "evaluation.adversarial_set needs adversarial images, and this study makes none",
        ),
        (
            {"adversary": attack_on("expert", "vgg"), "evaluation_networks": {"other": small_mlp}},
            "adversary.members has 'vgg', .* give some of expert, held-out, other, or null",
        ),
        (
            {"experts": chosen_experts(evaluation_checkpoints={"a": "a.pt"})},
            "experts.evaluation_checkpoints has weights of 'a', and no evaluation network is called so: there are "
            r"none, or add the evaluation network with \+network@evaluation_networks.a=<network>",
        ),
        (
            {
                "experts": chosen_experts(evaluation_checkpoints={"a": "a.pt"}),
                "evaluation_networks": {"b": small_mlp, "c": small_mlp},
            },
            "and no evaluation network is called so: give it as one of b, c, or add the evaluation network with",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused_before_an_expert_is_trained(tmp_path, changes, message):
    made = study(tmp_path / "store", held_out=[1])
    for name, value in changes.items():
        setattr(made, name, value)
    configuration = {**CONFIGURATION, "recipe": {"epochs": 4}}
    with pytest.raises(ValueError, match=message):
        made.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)


def test_representations_are_measured_before_and_after_on_adversarial_images(tmp_path):
    """From experts to pages, with networks and images that another part makes."""
    made = trainable(tmp_path / "store")
    made.network, made.method = small_convnet, {}
    made.recipe = lambda *, data, seeds, **_: experts(data, seeds, epochs=2, network=small_convnet)
    made.adversary = lambda subject, _: swapped(subject.data, tmp_path / "adversarial")
    made.fine_tuning = lambda subject, _: subject.trajectories
    settings = {"networks": None, "layer": None}
    made.evaluation = {
        "representations": Ratios(networks=None),
        "adversarial_detection": AdversarialDetection(
            **settings, pooling=flat, covariance=LedoitWolf()
        ),
        "traces": Traces(
            **settings, images=1, files=[], neurons=2, fraction=0.1, taxonomy=Flat(), sigma=1.0
        ),
    }
    made.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for name in (
        "representations/{}/r1",
        "adversarial_detection/{}/auc",
        "traces/{}/adversarial/consistent",
    ):
        assert metrics[name.format("expert")] == metrics[name.format("fine-tuned")]
    page = (tmp_path / "run" / "report.html").read_text()
    assert '<a href="./traces.html">' in page
    for title in (
        "How far attacks move representations",
        "AdversarialSet images told from real ones",
    ):
        assert f"<h3>{title}</h3>" in page
    told = (tmp_path / "run" / "traces.html").read_text()
    # A test image and what was made of it, each before and after.
    assert told.count("data:image/png") == 4


def test_networks_are_trained_on_the_images_that_are_constructed(tmp_path):
    made = trainable(tmp_path / "store", held_out=[1])
    made.corruption = NOISE

    def construction(data, training):
        train = data.splits.train
        assert torch.equal(train.labels, data.corrupted.images.labels)
        return Constructed(
            ImageSet(255 - train.images, train.labels), {"dataset_construction/a": 0.5}
        )

    made.dataset_construction = construction
    found = looked_at(made, tmp_path / "run")
    train, clean = found.data.splits.train, found.data.clean
    assert torch.equal(train.images, 255 - clean.images)
    identities = [t.identity for t in (*found.trajectories, *found.held_out)]
    assert {i["data"] for i in identities} == {found.data.fingerprint()}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["dataset_construction/a"] == 0.5
    # The same images, from wherever, lead to the same experts.
    again = trainable(tmp_path / "store", held_out=[1])
    again.data = found.data
    again.corruption, again.dataset_construction = (lambda *_: found.data.corrupted), construction
    paths = [t.path for t in looked_at(again, tmp_path / "again").trajectories]
    assert paths == [t.path for t in found.trajectories]


class Suspects:
    """Suspects what it is told to, as a purification does."""

    def __init__(self, *suspected):
        self.suspected = suspected

    def __call__(self, subject, sources):
        marks = torch.zeros(60, dtype=torch.bool)
        marks[list(self.suspected)] = True
        return Suspicion(
            suspected=marks, at_first=marks, label=0 if self.suspected else None, separation={}
        )


def trainable(store, **changes):
    """A study that trains its experts, with what `changes` says."""
    made = study(store)
    made.recipe = lambda *, data, seeds, epochs=2, **_: experts(data, seeds, epochs=epochs)
    chosen = {"purified": [0, 1], "evaluation_seeds": [], "at_once": 2, **changes}
    made.experts = chosen_experts(**chosen)
    return made


class Look:
    """Keeps the subject that it is shown."""

    def __call__(self, subject, sources):
        self.subject = subject
        return Outcome()


def looked_at(made, folder):
    look = Look()
    made.method, made.evaluation = {}, {"look": look}
    made.run(Results(folder), CONFIGURATION, experiment="x", resumed=False)
    return look.subject


def test_experts_are_trained_anew_without_the_suspected_images(tmp_path):
    made = trainable(tmp_path / "store")
    made.purification = Suspects(0, 1, 5)
    found = looked_at(made, tmp_path / "run")
    marks = load_file(tmp_path / "run" / "suspected.safetensors")["suspected"]
    assert marks.nonzero()[:, 0].tolist() == [0, 1, 5]
    left = found.data.without(marks)
    assert len(left.splits.train) == 57
    assert len(found.data.splits.train) == 60
    assert torch.equal(left.splits.train.labels[:3], found.data.splits.train.labels[2:5])
    identities = [json.loads((t.path / "identity.json").read_text()) for t in found.purified]
    assert [i["seed"] for i in identities] == [0, 1]
    assert {i["data"] for i in identities} == {left.fingerprint()}
    assert list(found.experts()) == ["expert", "purified"]


def test_without_a_suspect_the_purified_experts_are_those_there_are(tmp_path):
    made = trainable(tmp_path / "store", purified=[0])
    made.purification = Suspects()
    found = looked_at(made, tmp_path / "run")
    assert [t.path for t in found.purified] == [t.path for t in found.trajectories]


def test_early_experts_go_as_far_as_they_are_asked_and_are_not_judged(tmp_path):
    made = trainable(tmp_path / "store", early=Early(seeds=[5, 6], epochs=1))
    found = looked_at(made, tmp_path / "run")
    assert [t.epochs for t in found.fitted] == [2, 1, 1]
    assert {name: len(networks) for name, networks in found.panel().items()} == {"expert": 1}
    # The same training as far as it goes.
    longer = trainable(tmp_path / "store", seeds=[5])
    (whole,) = looked_at(longer, tmp_path / "again").trajectories
    for name, tensor in whole.state(1).items():
        assert torch.equal(tensor, found.early[0].state(1)[name])


@pytest.mark.parametrize(
    "given",
    [
        {"seeds": [1], "held_out": [1]},
        {"seeds": [1], "early": Early(seeds=[2, 1], epochs=1)},
        {"early": Early(seeds=[7], epochs=1), "held_out": [7]},
        {"seeds": [3, 3]},
        {"purified": [4, 4]},
        {"evaluation_seeds": [0, 0]},
    ],
)
def test_a_seed_is_of_one_kind_of_expert(tmp_path, given):
    with pytest.raises(ValueError, match="seed . is given twice in experts.*: give each"):
        trainable(tmp_path / "store", **given)


@pytest.fixture
def checkpoint(subject, tmp_path):
    """The weights of the first expert, as another code would save them."""
    path = tmp_path / "foreign.pth"
    state = subject.trained(subject.trajectories[0]).state_dict()
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    return str(path)


def test_checkpoints_are_explained_without_training_images(subject, checkpoint, tmp_path):
    made = study(tmp_path / "store")
    made.data = image_data(BlobsToTest(), per_class=2)
    made.experts = chosen_experts(checkpoints=[checkpoint])
    made.method, made.evaluation = {}, {"accuracy": Accuracy(attacks={}, images=None, top=[1])}
    made.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    network = subject.trained(subject.trajectories[0])
    expected = accuracy(network, made.data.test_batches())
    assert accuracies(tmp_path / "run") == {"accuracy/expert/clean": expected}
    assert expected > 0.9
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["corruption/effective_rate"] == 0
    classes = (tmp_path / "run" / "tables" / "classes.csv").read_text().splitlines()
    assert classes[1:] == ["0,left,,0,8", "1,middle,,0,0", "2,right,,0,8"]
    assert (tmp_path / "run" / "report.html").exists()


def test_a_procedure_is_not_asked_about_what_it_does_not_train(checkpoint, tmp_path):
    made = study(tmp_path / "store")
    made.recipe, made.evaluation_networks = cannot_train("network"), {"mlp": small_mlp}
    made.experts = chosen_experts(checkpoints=[checkpoint], evaluation_seeds=[])
    made.method, made.evaluation = {}, {}
    configuration = {**CONFIGURATION, "evaluation_networks": {"mlp": {}}}
    made.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
    made.recipe = cannot_train("mlp")
    made.run(Results(tmp_path / "again"), configuration, experiment="x", resumed=False)


JUDGED = {
    "evaluation_networks": {"twin": {"network": "twin"}},
    "precision": {"experts": {}, "methods": {}},
}


def test_networks_trained_elsewhere_are_attacked_together(subject, checkpoint, tmp_path):
    made = study(tmp_path / "store")
    made.data, made.evaluation_networks = image_data(BlobsToTest()), {"twin": small_mlp}
    torch.save(subject.trained(subject.held_out[0]).state_dict(), tmp_path / "twin.pt")
    made.experts = chosen_experts(
        checkpoints=[checkpoint], evaluation_checkpoints={"twin": str(tmp_path / "twin.pt")}
    )
    made.adversary = attack_on()
    made.method, made.evaluation = (
        {},
        {"adversarial_set": AdversarialSetAccuracy(shown=2, amplify=5)},
    )
    configuration = CONFIGURATION | JUDGED
    made.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for name in ("expert", "twin"):
        assert metrics[f"adversary/accuracy/{name}"] > 0.9
        success = metrics[f"adversary/success/{name}"]
        assert metrics[f"adversarial_set/{name}/success"] == pytest.approx(success)
        assert success > 0.3
        clean = metrics[f"adversarial_set/{name}/clean_top1"]
        assert clean == pytest.approx(metrics[f"adversary/accuracy/{name}"])
        assert metrics[f"adversarial_set/{name}/top1"] < clean
    distance = metrics["adversary/distance"]
    assert metrics["adversarial_set/distance"] == pytest.approx(distance)
    table = (tmp_path / "run" / "tables" / "adversarial.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in table[1:]] == [
        ["expert", "yes", "1"],
        ["twin", "yes", "1"],
    ]
    assert (tmp_path / "run" / "figures" / "adversarial.png").exists()


def test_judges_are_trained_where_no_checkpoint_is_given(subject, checkpoint, tmp_path):
    made = trainable(
        tmp_path / "store", evaluation_seeds=[3, 4], evaluation_checkpoints={"twin": checkpoint}
    )
    made.evaluation_networks = {"first": small_mlp, "twin": small_mlp}
    made.method, made.evaluation = {}, {"look": (look := Look())}
    evaluation_networks = {"evaluation_networks": {"first": {}, "twin": {}}}
    made.run(
        Results(tmp_path / "run"),
        CONFIGURATION | evaluation_networks,
        experiment="x",
        resumed=False,
    )
    found = look.subject
    assert (
        list(found.evaluation_networks) == list(found.evaluation_trajectories) == ["first", "twin"]
    )
    assert [t.identity["seed"] for t in found.evaluation_trajectories["first"]] == [3, 4]
    (imported,) = found.evaluation_trajectories["twin"]
    assert "checkpoint" in imported.identity
    for name, trajectories in found.evaluation_trajectories.items():
        for network, trajectory in zip(found.evaluation_networks[name], trajectories, strict=True):
            state = trajectory.state(trajectory.epochs)
            assert all(torch.equal(t, state[n]) for n, t in network.state_dict().items())


def test_a_judge_without_seeds_or_checkpoint_is_left_out(tmp_path):
    made = trainable(tmp_path / "store", evaluation_seeds=[])
    made.evaluation_networks = {"none": small_mlp}
    assert looked_at(made, tmp_path / "run").evaluation_networks == {}


def test_a_judge_that_is_missing_is_named_before_an_expert_is_trained(tmp_path):
    made = trainable(tmp_path / "store", evaluation_checkpoints={"twin": "nowhere.pt"})
    made.evaluation_networks = {"twin": small_mlp}
    with pytest.raises(ValueError, match="the checkpoint nowhere.pt cannot be read"):
        looked_at(made, tmp_path / "run")
    assert not (tmp_path / "store").exists()


ELSEWHERE = {"seeds": [], "checkpoints": ["x.pt"]}
DISTILL = partial(Distill, span=2, start_min=0, start_max=2)
UNTRAINABLE = {
    "seeds": ({}, {}, "no training images, and experts.seeds ask for .* give experts.checkpoints="),
    "early": (
        {"early": Early(seeds=[3], epochs=1)},
        {},
        "and experts.seeds, experts.early.seeds ask",
    ),
    "held-out": ({**ELSEWHERE, "held_out": [1]}, {}, "and experts.held_out ask .*held_out=.."),
    "evaluation_networks": (
        ELSEWHERE,
        {"evaluation_networks": {"mlp": small_mlp}},
        "and experts.evaluation_seeds ask .*seeds=..",
    ),
    "one evaluation network": (
        {**ELSEWHERE, "evaluation_checkpoints": {"a": "a.pt"}},
        {"evaluation_networks": {"a": small_mlp, "b": small_mlp}},
        "and experts.evaluation_seeds ask .* or give experts.evaluation_checkpoints",
    ),
    "noise": (ELSEWHERE, {"corruption": NOISE}, "label noise needs training images"),
    "distill": (
        ELSEWHERE,
        {"method": {"cwx": DISTILL}},
        "cwx imitates the way .* a network of experts.checkpoints has a single state: choose an",
    ),
}


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_what_needs_training_is_refused_without_training_images(tmp_path, case):
    chosen, changes, message = UNTRAINABLE[case]
    made = study(tmp_path / "store")
    made.data, made.experts = image_data(BlobsToTest()), chosen_experts(**chosen)
    for name, value in changes.items():
        setattr(made, name, value)
    with pytest.raises(ValueError, match=message):
        made.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trajectories": ["a"], "checkpoints": ["b"]}, "both given: leave one of them empty"),
        ({"epoch": -1}, "experts.epoch is -1, negative: set it to null"),
        ({"checkpoints": ["b"], "epoch": 3}, "experts.epoch is 3, given, and checkpoints have no"),
        ({"seeds": []}, "a study needs an expert"),
    ],
)
def test_impossible_experts_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        chosen_experts(**given)


def shown_at(epoch, store, *, recorded=None, **changes):
    """A study of an expert of 3 epochs, as it was after `epoch`, and its configuration."""
    made = trainable(store, epoch=epoch, **changes)
    recording = Recording(epochs=recorded)
    made.recipe = lambda *, data, seeds, **_: experts(data, seeds, epochs=3, recording=recording)
    recipe = {"epochs": 3, "recording": {"epochs": recorded}}
    return made, {**CONFIGURATION, "recipe": recipe}


@pytest.mark.parametrize("epoch", [0, 1, 3, None])
def test_experts_are_judged_as_they_were_after_the_epoch(tmp_path, epoch):
    made, configuration = shown_at(epoch, tmp_path / "store", recorded=1, held_out=[9])
    made.method, made.evaluation = {}, {"accuracy": Accuracy(attacks={}, images=None, top=[1])}
    made.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
    found = {}
    for identity in (tmp_path / "store").glob("*/identity.json"):
        kind = "held-out" if json.loads(identity.read_text())["seed"] == 9 else "expert"
        trajectory = Trajectory(identity.parent)
        end = 3 if epoch is None else epoch
        found[f"accuracy/{kind}/clean"] = pytest.approx(trajectory.accuracy(end))
    assert accuracies(tmp_path / "run") == found


@pytest.mark.parametrize(
    ("epoch", "recorded", "changes", "message"),
    [
        (4, None, {}, "experts.epoch is 4, and recipe.epochs is 3: give 3 or less, or raise"),
        (2, 1, {}, "is 2, and recipe.recording.epochs=1 keeps 0-1, 3 alone: .* raise it to 2"),
    ],
)
def test_an_epoch_out_of_reach_is_refused_before_training(
    tmp_path, epoch, recorded, changes, message
):
    made, configuration = shown_at(epoch, tmp_path / "store", recorded=recorded, **changes)
    with pytest.raises(ValueError, match=message):
        made.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
    assert not (tmp_path / "store").exists()


def test_an_epoch_that_recorded_experts_lack_is_refused(subject, tmp_path):
    paths = [str(t.path) for t in subject.trajectories]
    made, configuration = shown_at(6, tmp_path / "store", trajectories=paths)
    with pytest.raises(ValueError, match=r"epoch 6 is not among those recorded in .* \(0-4\)"):
        made.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
