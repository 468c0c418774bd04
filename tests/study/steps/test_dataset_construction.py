"""Training images are replaced before the networks of a study are trained, and by what."""

import json
import logging
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from support import builders
from support.builders import experts, image_data
from support.construction_algorithms import ALGORITHMS, MATCHING
from support.entry import run, start

from cwx.data.corruption import LabelNoise, NoCorruption
from cwx.data.splits import ImageSet
from cwx.functional.label_noise import Uniform
from cwx.methods.construction_algorithms import FeatureMatching
from cwx.methods.dataset_construction import DatasetConstructor
from cwx.study.steps.dataset_construction import GenerateDataset, ImportDataset, NoConstruction
from cwx.training.plan import Plan

SETTINGS = {"algorithm": {"name": "matching"}, "recipe": {"epochs": 2}, "seed": 7}


def recipe(*, data, seeds, **_):
    return experts(data, seeds, epochs=2)


def training(store, settings=SETTINGS):
    """Has only the recipe of the dataset construction."""
    configuration = {
        "network": {},
        "recipe": {"none": True},
        "dataset_construction": settings,
        "precision": {"experts": {}, "methods": {}},
    }
    return builders.training(store, configuration)


def generator(algorithm=MATCHING, **changes):
    return GenerateDataset(
        **{"recipe": recipe, "algorithm": algorithm, "seed": 7, "batch_size": 25} | changes
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_set_is_constructed_once_and_read_again(tmp_path, caplog, name):
    data, construction = image_data(), generator(ALGORITHMS[name])
    before = data.splits.train
    with caplog.at_level(logging.INFO, "cwx"):
        constructed = construction(data, training(tmp_path))
    assert len(constructed.images) == len(before)
    assert not torch.equal(constructed.images.images, before.images)
    metric = construction.algorithm.metric_name
    assert constructed.metrics.keys() == {
        *(f"dataset_construction/{metric}/{stage}" for stage in ("start", "made", "rounded")),
        "dataset_construction/moved",
        "dataset_construction/source_accuracy",
    }
    lines = [m for m in caplog.messages if "construct" in m]
    assert lines[0] == "making dataset_construction: 3 of 3 batches are not in the store"
    assert f"60 images constructed in {tmp_path}" in lines[-1]
    start = constructed.metrics[f"dataset_construction/{metric}/start"]
    assert f"{metric} {start:.4g} at start" in lines[-1]
    caplog.clear()
    with caplog.at_level(logging.INFO, "cwx"):
        again = construction(data, training(tmp_path))
    assert again.metrics == constructed.metrics
    assert torch.equal(again.images.images, constructed.images.images)
    assert not [m for m in caplog.messages if "not in the store" in m]
    # The construction does not change the data of the study.
    assert data.splits.train is before


def test_the_accuracy_of_the_source_is_that_on_the_present_test_images(tmp_path):
    """The store has the one that was recorded in its training, on the test images of then."""
    data = image_data()
    first = generator()(data, training(tmp_path)).metrics["dataset_construction/source_accuracy"]
    test = data.splits.test
    swapped = ImageSet(test.images, (test.labels + 1) % len(data.classes))
    data._splits = replace(data.splits, test=swapped)
    second = generator()(data, training(tmp_path)).metrics["dataset_construction/source_accuracy"]
    assert len(sets(tmp_path)) == 1
    assert first > 0.5 > second


def sets(store):
    return {path.parent for path in store.glob("*/shard-00000.safetensors")}


@pytest.mark.parametrize(
    "change", ["data", "settings", "seed", "recipe"], ids=lambda change: f"other {change}"
)
def test_a_change_of_the_identity_makes_another_set(tmp_path, change):
    data = image_data()
    generator()(data, training(tmp_path))
    settings, changes = dict(SETTINGS), {}
    if change == "data":
        data.corrupt(LabelNoise(kind=Uniform(), rate=0.5, seed=0))
    elif change == "settings":
        settings["algorithm"] = {"name": "other"}
    elif change == "seed":
        settings["seed"], changes = 8, {"seed": 8}
    else:
        settings["recipe"] = {"epochs": 3}
    generator(**changes)(data, training(tmp_path, settings))
    assert len(sets(tmp_path)) == 2


def test_the_images_of_the_accuracy_do_not_change_the_identity(tmp_path):
    for images in (10, 20):
        recipe = {"epochs": 2, "recording": {"images": images}}
        generator()(image_data(), training(tmp_path, {**SETTINGS, "recipe": recipe}))
    assert len(sets(tmp_path)) == 1


class PowerCut(Exception):
    pass


def test_an_interrupted_construction_resumes_to_the_same_set(tmp_path, monkeypatch):
    whole = generator(batch_size=9)(image_data(), training(tmp_path / "whole"))
    step, numbers = DatasetConstructor.predict_step, []

    def cut(self, number):
        if number == 4:
            raise PowerCut
        numbers.append(number)
        return step(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(DatasetConstructor, "predict_step", cut)
        with pytest.raises(PowerCut):
            generator(batch_size=9)(image_data(), training(tmp_path / "cut"))
        assert numbers == [0, 1, 2, 3]
    again = generator(batch_size=9)(image_data(), training(tmp_path / "cut"))
    assert torch.equal(again.images.images, whole.images.images)
    assert again.metrics == whole.metrics


def test_an_algorithm_is_refused_before_a_network_is_trained(tmp_path):
    wrong = FeatureMatching(layer="haed", step=0.1, steps=1)
    with pytest.raises(ValueError, match="no layer 'haed'"):
        generator(wrong)(image_data(), training(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="dataset_construction.batch_size is 0: give 1 or more"):
        generator(batch_size=0)


def test_no_construction_returns_none():
    assert NoConstruction()(image_data(), training("unused")) is None


def test_a_set_of_the_store_can_be_imported(tmp_path):
    data = image_data()
    constructed = generator(ALGORITHMS["next"])(data, training(tmp_path))
    (folder,) = sets(tmp_path)
    imported = ImportDataset(path=str(folder))(data, training(tmp_path))
    assert torch.equal(imported.images.images, constructed.images.images)
    assert torch.equal(imported.images.labels, constructed.images.labels)
    before = data.fingerprint()
    data.train_on(imported.images)
    assert torch.equal(data.splits.train.labels, (data.clean.labels + 1) % 3)
    assert data.fingerprint() != before
    assert torch.equal(data.corrupted.images.labels, data.clean.labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((5, 1, 4, 4), [0, 1, 2, 0, 1], "images are 1x4x4, but the test images are 2x4x4"),
        ((2, 2, 4, 4), [0, 3], "labels in 0-3, but there are 3 classes"),
        ((2, 2, 4, 4), [-1, 0], "labels in -1-0"),
    ],
)
def test_a_set_of_other_data_is_refused(tmp_path, images, labels, message):
    data = image_data()
    image_set = ImageSet(torch.zeros(images, dtype=torch.uint8), torch.tensor(labels))
    with pytest.raises(ValueError, match=message):
        data.train_on(image_set)
    path = tmp_path / "set.safetensors"
    save_file({"images": image_set.images, "labels": image_set.labels}, path)
    before = data.splits
    with pytest.raises(ValueError, match=f"^{path}: .*{message}"):
        ImportDataset(path=str(path))(data, training(tmp_path))
    assert data.splits is before


def test_an_import_with_a_corruption_is_refused(tmp_path):
    data = image_data()
    plan = Plan(data=data, methods=[], held_out=0)
    data.corrupt(NoCorruption())
    ImportDataset(path="any").check(plan)
    data.corrupt(LabelNoise(kind=Uniform(), rate=0.5, seed=0))
    with pytest.raises(ValueError, match="choose corruption=none, or a dataset_construction"):
        ImportDataset(path="any").check(replace(plan, data=data))


DIGITS = [
    "network.width=4", "recipe.epochs=2", "experts.seeds=[0]", "experts.held_out=[]",
    "evaluation_networks={}", "method=[]", "evaluation=[accuracy]", "logger=[]",
    "dataset_construction=robust", "dataset_construction.recipe.epochs=2",
    "dataset_construction.recipe.attack.steps=2", "dataset_construction.algorithm.steps=25",
    "dataset_construction.algorithm.step=0.3", "dataset_construction.batch_size=20",
    "data.per_class=30",
]  # fmt: skip


def contents(store):
    (folder,) = sets(store)
    return {file.name: file.read_bytes() for file in folder.glob("shard-*")}


def construct_alone(tmp_path, *changes):
    """The shards and metrics of one process; store "two" has its network and one shard."""
    code, output = run(tmp_path, *DIGITS, *changes, "store=one", "hydra.run.dir=one-run")
    assert code == 0, output
    shards = contents(tmp_path / "one")
    assert len(shards) == 15
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (folder,) = sets(tmp_path / "two")
    for file in [*folder.glob("*.json"), *folder.glob("shard-*")]:
        if file.name != "shard-00005.safetensors":
            file.unlink()
    return shards, json.loads((tmp_path / "one-run" / "metrics.json").read_text()), folder


TWO = ["store=two", "trainer=ddp_cpu", "hydra.run.dir=two-run"]


def test_two_processes_construct_the_set_of_one(tmp_path):
    shards, metrics, folder = construct_alone(tmp_path)
    distance = "dataset_construction/distance"
    assert metrics[f"{distance}/rounded"] < metrics[f"{distance}/start"]
    stamp = (folder / "shard-00005.safetensors").stat().st_mtime_ns
    code, output = run(tmp_path, *DIGITS, *TWO)
    assert code == 0, output
    assert "14 of 15 batches are not in the store" in output
    assert contents(tmp_path / "two") == shards
    # What exists is not constructed again.
    assert (folder / "shard-00005.safetensors").stat().st_mtime_ns == stamp
    assert json.loads((tmp_path / "two-run" / "metrics.json").read_text()) == metrics


@pytest.mark.slow
def test_two_processes_that_were_killed_resume_to_the_set_of_one(tmp_path):
    longer = "dataset_construction.algorithm.steps=100"
    shards, metrics, folder = construct_alone(tmp_path, longer)
    process = start(tmp_path, *DIGITS, longer, *TWO)
    deadline = time.monotonic() + 120
    while len([*folder.glob("shard-*")]) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    assert not (folder / "complete.json").exists()
    code, output = run(tmp_path, "resume=two-run")
    assert code == 0, output
    assert contents(tmp_path / "two") == shards
    assert json.loads((tmp_path / "two-run" / "metrics.json").read_text()) == metrics


@pytest.mark.slow
def test_a_rank_without_a_batch_waits_for_the_others(tmp_path):
    code, output = run(
        tmp_path, *DIGITS, "dataset_construction.batch_size=5000", "trainer=ddp_cpu",
        "hydra.run.dir=run", "dataset_construction.algorithm.steps=1",
    )  # fmt: skip
    assert code == 0, output
    assert "1 of 1 batches" in output
    assert "1/1  batches" in output
