"""Sets of examples, written batch by batch and by several processes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule
from support.builders import stages

from cwx.storage.shards import Shards
from cwx.storage.trajectories import TrajectoryStore


@given(count=st.integers(1, 40), size=st.integers(1, 45))
def test_batches_partition_the_examples(tmp_path_factory, count, size):
    shards = Shards(tmp_path_factory.mktemp("set"), count=count, size=size)
    rows = [list(range(count))[shards.rows(number)] for number in range(len(shards))]
    assert [row for batch in rows for row in batch] == list(range(count))
    assert all(len(batch) == size for batch in rows[:-1])
    assert shards.missing() == list(range(len(shards)))


def batch(shards, number):
    rows = torch.arange(shards.count)[shards.rows(number)]
    return {"images": rows.byte().view(-1, 1, 1, 1).expand(-1, 3, 2, 2), "squares": rows.square()}


def test_batches_written_in_any_order_are_read_in_order(tmp_path):
    shards = Shards(tmp_path / "set", count=7, size=3)
    for number in (2, 0, 1):
        assert number in shards.missing()
        shards.write(number, batch(shards, number))
        assert number not in shards.missing()
    shards.start({"name": "squares"})
    shards.complete()
    tensors = Shards.open(tmp_path / "set").read()
    assert tensors["squares"].tolist() == [n * n for n in range(7)]
    assert tensors["images"][:, 0, 0, 0].tolist() == list(range(7))
    assert tensors["images"].dtype == torch.uint8


@given(indices=st.lists(st.integers(0, 6), max_size=20))
def test_examples_are_read_by_index_in_any_order(tmp_path_factory, indices):
    shards = Shards(tmp_path_factory.mktemp("set"), count=7, size=3)
    for number in range(3):
        shards.write(number, batch(shards, number))
    images = shards.at("images", torch.tensor(indices, dtype=torch.int64))
    assert images.shape == (len(indices), 3, 2, 2)
    assert images[:, 0, 0, 0].tolist() == indices
    with pytest.raises(ValueError, match="shard-00000.safetensors has no tensor labels"):
        shards.tensor("labels")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "shard-00001.* damaged or missing.*: delete it"),
        (lambda file: file.write_bytes(file.read_bytes()[:-3]), "shard-00001.* damaged"),
        (
            lambda file: file.write_bytes(file.with_name("shard-00002.safetensors").read_bytes()),
            "does not have the 3 examples of its batch: delete it",
        ),
    ],
)
def test_a_damaged_batch_is_named(tmp_path, damage, message):
    shards = Shards(tmp_path, count=7, size=3)
    for number in range(3):
        shards.write(number, batch(shards, number))
    damage(tmp_path / "shard-00001.safetensors")
    with pytest.raises(ValueError, match=message):
        shards.read()


@pytest.mark.parametrize("text", [None, "{", "{}", "[]", '{"count": 0, "size": 1}'])
def test_a_folder_without_a_complete_set_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "complete.json").write_text(text)
    with pytest.raises(ValueError, match=r"holds no complete set of examples.*let the run"):
        Shards.open(tmp_path)


class Squares(LightningModule):
    """Computes batches, and fails like a killed process at batch `stop`."""

    stage = "squares"

    def __init__(self, shards, stop=None):
        super().__init__()
        self.shards, self.stop, self.numbers = shards, stop, []

    def predict_step(self, number):
        if number == self.stop:
            raise KeyError("power")
        self.numbers.append(number)
        with torch.enable_grad():
            # Lightning's inference mode would raise here.
            weight = torch.ones(1, requires_grad=True)
            torch.autograd.grad((2 * weight).sum(), weight)
        return batch(self.shards, number)


def test_an_interrupted_set_is_continued_and_a_complete_one_is_unchanged(tmp_path):
    store, identity = TrajectoryStore(tmp_path), {"set": "squares"}
    shards = Shards(store.path(identity), count=11, size=2)

    def make(stop=None):
        modules = []

        def build():
            modules.append(Squares(shards, stop))
            return modules[0]

        stages().write_shards(build, shards, identity, store)
        return modules

    with pytest.raises(KeyError):
        make(stop=3)
    assert shards.missing() == [3, 4, 5]
    assert not (shards.folder / "complete.json").exists()
    (module,) = make()
    assert module.numbers == [3, 4, 5]
    assert shards.read()["squares"].tolist() == [n * n for n in range(11)]
    assert make() == []
    assert Shards.open(shards.folder).count == 11
