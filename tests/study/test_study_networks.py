"""The networks of a study: trained, imported, purified, and their epochs."""

import json

import pytest
import torch
from safetensors.torch import load_file
from support.builders import BlobsWithoutTraining, image_data, small_mlp
from support.studies import (
    CONFIGURATION,
    SubjectRecorder,
    accuracies,
    chosen_experts,
    ensemble,
    make_study,
    refuse_to_train,
    run_to_subject,
    study_at_epoch,
    subject_of,
    trainable_study,
)

from cwx.evaluations.accuracy import Accuracy
from cwx.evaluations.adversarial.adversarial_set import AdversarialSetAccuracy
from cwx.evaluations.backdoor.suspects import Suspicion
from cwx.networks.eval_mode import accuracy
from cwx.storage.trajectories import Trajectory
from cwx.study.results import Results
from cwx.training.experts import EarlyExperts


def buffer(path, network, trajectories):
    names = [name for name, _ in network.named_parameters()]
    states = [[t.state(epoch) for epoch in t.recorded_epochs] for t in trajectories]
    torch.save([[[s[name] for name in names] for s in expert] for expert in states], path)
    return path


def test_folders_and_buffers_are_read_in_order(subject, tmp_path):
    first, second = subject.trajectories
    path = buffer(tmp_path / "two.pt", subject.network(), [second, first])
    study = make_study(tmp_path / "store", first.path, path)
    trajectories = subject_of(study, tmp_path).trajectories
    assert trajectories[0].path == first.path
    assert [t.path.parent for t in trajectories[1:]] == [tmp_path / "store"] * 2
    for trajectory, expected in zip(trajectories, (first, second, first), strict=True):
        for epoch in range(5):
            state, other = trajectory.state(epoch), expected.state(epoch)
            assert all(torch.equal(state[name], other[name]) for name in state)


class FixedSuspicion:
    """FixedSuspicion what it is traces_page to, as a purification does."""

    def __init__(self, *suspected):
        self.suspected = suspected

    def __call__(self, subject, sources):
        marks = torch.zeros(60, dtype=torch.bool)
        marks[list(self.suspected)] = True
        return Suspicion(
            suspected=marks,
            initially_suspected=marks,
            label=0 if self.suspected else None,
            separation={},
        )


def test_experts_are_trained_again_without_the_suspected_images(tmp_path):
    study = trainable_study(tmp_path / "store")
    study.purification = FixedSuspicion(0, 1, 5)
    subject = run_to_subject(study, tmp_path / "run")
    marks = load_file(tmp_path / "run" / "suspected.safetensors")["suspected"]
    assert marks.nonzero()[:, 0].tolist() == [0, 1, 5]
    left = subject.data.without(marks)
    assert len(left.splits.train) == 57
    assert len(subject.data.splits.train) == 60
    assert torch.equal(left.splits.train.labels[:3], subject.data.splits.train.labels[2:5])
    identities = [json.loads((t.path / "identity.json").read_text()) for t in subject.purified]
    assert [i["seed"] for i in identities] == [0, 1]
    assert {i["data"] for i in identities} == {left.fingerprint()}
    assert list(subject.experts()) == ["expert", "purified"]


def test_without_suspected_images_the_purified_experts_equal_the_experts(tmp_path):
    study = trainable_study(tmp_path / "store", purified=[0])
    study.purification = FixedSuspicion()
    subject = run_to_subject(study, tmp_path / "run")
    assert [t.path for t in subject.purified] == [t.path for t in subject.trajectories]


def test_early_experts_stop_early_and_are_not_evaluated(tmp_path):
    study = trainable_study(tmp_path / "store", early=EarlyExperts(seeds=[5, 6], epochs=1))
    subject = run_to_subject(study, tmp_path / "run")
    assert [t.epochs for t in subject.fitted] == [2, 1, 1]
    assert {name: len(networks) for name, networks in subject.panel().items()} == {"expert": 1}
    # The same training up to this epoch.
    longer = trainable_study(tmp_path / "store", seeds=[5])
    (whole,) = run_to_subject(longer, tmp_path / "again").trajectories
    for name, tensor in whole.state(1).items():
        assert torch.equal(tensor, subject.early[0].state(1)[name])


@pytest.fixture
def checkpoint(subject, tmp_path):
    """The weights of the first expert, as another code would save them."""
    path = tmp_path / "foreign.pth"
    state = subject.trained_network(subject.trajectories[0]).state_dict()
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    return str(path)


def test_checkpoints_can_be_explained_without_training_images(subject, checkpoint, tmp_path):
    study = make_study(tmp_path / "store")
    study.data = image_data(BlobsWithoutTraining(), per_class=2)
    study.experts = chosen_experts(checkpoints=[checkpoint])
    study.method, study.evaluation = (
        {},
        {"accuracy": Accuracy(attacks={}, images=None, evaluation_networks=False, top=[1])},
    )
    study.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    network = subject.trained_network(subject.trajectories[0])
    expected = accuracy(network, study.data.test_batches())
    assert accuracies(tmp_path / "run") == {"accuracy/expert/clean": expected}
    assert expected > 0.9
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["corruption/effective_rate"] == 0
    classes = (tmp_path / "run" / "tables" / "classes.csv").read_text().splitlines()
    assert classes[1:] == ["0,left,,0,8", "1,middle,,0,0", "2,right,,0,8"]
    assert (tmp_path / "run" / "report.html").exists()


def test_a_recipe_does_not_check_networks_that_it_does_not_train(checkpoint, tmp_path):
    study = make_study(tmp_path / "store")
    study.recipe, study.evaluation_networks = refuse_to_train("network"), {"mlp": small_mlp}
    study.experts = chosen_experts(checkpoints=[checkpoint], evaluation_seeds=[])
    study.method, study.evaluation = {}, {}
    configuration = {**CONFIGURATION, "evaluation_networks": {"mlp": {}}}
    study.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
    study.recipe = refuse_to_train("mlp")
    study.run(Results(tmp_path / "again"), configuration, experiment="x", resumed=False)


WITH_TWIN = {
    "evaluation_networks": {"twin": {"network": "twin"}},
    "precision": {"experts": {}, "methods": {}},
}


def test_imported_networks_are_attacked_as_an_ensemble(subject, checkpoint, tmp_path):
    study = make_study(tmp_path / "store")
    study.data, study.evaluation_networks = image_data(BlobsWithoutTraining()), {"twin": small_mlp}
    torch.save(subject.trained_network(subject.held_out[0]).state_dict(), tmp_path / "twin.pt")
    study.experts = chosen_experts(
        checkpoints=[checkpoint], evaluation_checkpoints={"twin": str(tmp_path / "twin.pt")}
    )
    study.adversary = ensemble()
    study.method, study.evaluation = (
        {},
        {"adversarial_set": AdversarialSetAccuracy(shown=2, amplify=5)},
    )
    configuration = CONFIGURATION | WITH_TWIN
    study.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
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
    table = (tmp_path / "run" / "tables" / "adversarial_set.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in table[1:]] == [
        ["expert", "yes", "1"],
        ["twin", "yes", "1"],
    ]
    assert (tmp_path / "run" / "figures" / "adversarial_set.png").exists()


def test_evaluation_networks_without_a_checkpoint_are_trained(checkpoint, tmp_path):
    study = trainable_study(
        tmp_path / "store", evaluation_seeds=[3, 4], evaluation_checkpoints={"twin": checkpoint}
    )
    study.evaluation_networks = {"first": small_mlp, "twin": small_mlp}
    study.method, study.evaluation = {}, {"recorder": (recorder := SubjectRecorder())}
    evaluation_networks = {"evaluation_networks": {"first": {}, "twin": {}}}
    study.run(
        Results(tmp_path / "run"),
        CONFIGURATION | evaluation_networks,
        experiment="x",
        resumed=False,
    )
    subject = recorder.subject
    assert (
        list(subject.evaluation_networks)
        == list(subject.evaluation_trajectories)
        == ["first", "twin"]
    )
    assert [t.identity["seed"] for t in subject.evaluation_trajectories["first"]] == [3, 4]
    (imported,) = subject.evaluation_trajectories["twin"]
    assert "checkpoint" in imported.identity
    for name, trajectories in subject.evaluation_trajectories.items():
        for network, trajectory in zip(
            subject.evaluation_networks[name], trajectories, strict=True
        ):
            state = trajectory.state(trajectory.epochs)
            assert all(torch.equal(t, state[n]) for n, t in network.state_dict().items())


def test_an_evaluation_network_without_seeds_or_checkpoint_is_omitted(tmp_path):
    study = trainable_study(tmp_path / "store", evaluation_seeds=[])
    study.evaluation_networks = {"none": small_mlp}
    assert run_to_subject(study, tmp_path / "run").evaluation_networks == {}


@pytest.mark.parametrize("epoch", [0, 1, 3, None])
def test_experts_are_evaluated_at_the_epoch_of_the_study(tmp_path, epoch):
    study, configuration = study_at_epoch(epoch, tmp_path / "store", recorded=1, held_out=[9])
    study.method, study.evaluation = (
        {},
        {"accuracy": Accuracy(attacks={}, images=None, evaluation_networks=False, top=[1])},
    )
    study.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
    expected = {}
    for identity in (tmp_path / "store").glob("*/identity.json"):
        kind = "held-out" if json.loads(identity.read_text())["seed"] == 9 else "expert"
        trajectory = Trajectory(identity.parent)
        end = 3 if epoch is None else epoch
        expected[f"accuracy/{kind}/clean"] = pytest.approx(trajectory.accuracy(end))
    assert accuracies(tmp_path / "run") == expected
