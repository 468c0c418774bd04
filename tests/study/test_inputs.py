"""A run continues with the images, files and networks that it was started with, and no others."""

import json

import pytest
import torch
from support.builders import Blobs
from support.studies import CONFIGURATION, trainable_study

from cwx.data.splits import ImageSet
from cwx.storage.run_inputs import ChangedInputError, RunInputs
from cwx.study.results import Results


class Swapped(Blobs):
    """The images of one split are inverted, or the classes have other names."""

    def __init__(self, split):
        self.split = split
        if split == "classes":
            self.classes = ("right", "middle", "left")

    def _set(self, per_class, seed):
        images = super()._set(per_class, seed)
        if seed == {"train": 0, "test": 1}.get(self.split):
            return ImageSet(255 - images.images, images.labels)
        return images


def start(folder, *, source=None, stop=False, configuration=None, seeds=(0,)):
    """Run a study in `folder`; `stop` ends it when its networks are trained."""
    study = trainable_study(folder.parent / "store", purified=[], seeds=list(seeds))
    study.data = study.data.__class__(
        source=source or Blobs(),
        mean=0.5,
        std=[0.5, 0.25],
        batch_size=7,
        per_class=None,
        total=None,
    )
    study.method = {}

    def stopped(subject, sources):
        raise KeyboardInterrupt

    study.evaluation = {"stop": stopped} if stop else {}
    settings = {**CONFIGURATION, **(configuration or {})}
    resumed = (folder / "status.json").exists()
    study.run(Results(folder), settings, experiment="x", resumed=resumed)


def state(folder):
    return json.loads((folder / "status.json").read_text())["state"]


def start_and_stop(folder, **settings):
    with pytest.raises(KeyboardInterrupt):
        start(folder, stop=True, **settings)
    assert state(folder) == "interrupted"


@pytest.mark.parametrize(
    ("split", "name"),
    [("train", "the training images"), ("test", "the test images"), ("classes", "the training")],
)
@pytest.mark.parametrize("finished", [False, True])
def test_other_images_are_refused_and_the_earlier_state_stays(tmp_path, split, name, finished):
    folder = tmp_path / "run"
    start(folder) if finished else start_and_stop(folder)
    before = state(folder)
    with pytest.raises(ChangedInputError, match=f"^{name}.* changed since .*run was started"):
        start(folder, source=Swapped(split))
    assert state(folder) == before
    start(folder)
    assert state(folder) == "finished"


@pytest.mark.parametrize("setting", ["classes", "taxonomy", "trigger"])
def test_another_file_is_refused_by_its_path_and_setting(tmp_path, setting):
    file = tmp_path / f"{setting}.txt"
    file.write_text("a")
    configuration = {"evaluation": {"x": [{setting: str(file)}]}}
    start_and_stop(tmp_path / "run", configuration=configuration)
    file.write_text("b")
    with pytest.raises(ChangedInputError, match=rf"{setting}\.txt \(evaluation\.x\.0\.{setting}\)"):
        start(tmp_path / "run", configuration=configuration)
    file.write_text("a")
    start(tmp_path / "run", configuration=configuration)


def test_a_replaced_network_in_the_store_is_refused_and_one_trained_again_is_not(tmp_path):
    folder = tmp_path / "run"
    start_and_stop(folder)
    (entry,) = (tmp_path / "store").iterdir()
    state_file = entry / "state-0002.safetensors"
    original = state_file.read_bytes()
    state_file.write_bytes((entry / "state-0000.safetensors").read_bytes())
    with pytest.raises(ChangedInputError, match=f"the content of .*{entry.name}"):
        start(folder)
    for file in entry.iterdir():
        file.unlink()
    start(folder)
    assert state_file.read_bytes() == original


def test_another_identity_of_a_network_is_refused_before_it_is_trained(tmp_path):
    """As after a change of the code that makes the identity."""
    start_and_stop(tmp_path / "run")
    with pytest.raises(ChangedInputError, match="training of expert-0 changed"):
        start(tmp_path / "run", configuration={"network": {"width": 7}})
    assert len([*(tmp_path / "store").iterdir()]) == 1


def test_jobs_of_a_sweep_read_the_same(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    start(tmp_path / "sweep/0")
    with pytest.raises(ChangedInputError, match=r"changed since .*sweep/0 of the same sweep"):
        start(tmp_path / "sweep/1", source=Swapped("train"))
    assert state(tmp_path / "sweep/1") == "failed"
    start(tmp_path / "sweep/2", source=Swapped("train"), configuration={"data": {"root": "b"}})


def test_inputs_of_a_start_without_results_are_forgotten(tmp_path):
    """So that a file that made the run fail can be mended."""
    inputs = RunInputs(tmp_path)
    inputs.start(resumed=False)
    inputs.check("classes", "1")
    inputs.start(resumed=True)
    inputs.check("classes", "2")
    inputs.check_identity("expert-0", {"seed": 0})
    inputs.start(resumed=True)
    with pytest.raises(ChangedInputError, match="classes changed"):
        inputs.check("classes", "1")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', '{"a": {}}'])
def test_a_damaged_record_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "inputs.json").write_text(text)
    with pytest.raises(ValueError, match=r"inputs\.json is damaged") as refused:
        RunInputs(tmp_path).check("a", "b")
    assert "\n" not in str(refused.value)


def test_order_and_values_of_images_are_part_of_their_fingerprint():
    data = trainable_study("unused").data
    images = data.splits.train
    view = data.without(torch.zeros(len(images), dtype=torch.bool))
    assert view.fingerprint() == data.fingerprint()
    view.train_on(images.at(torch.arange(len(images)).flip(0)))
    assert view.fingerprint() != data.fingerprint()
