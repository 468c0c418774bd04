import json
import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from cwx.storage.atomic import write_json, write_tensors
from cwx.training.callbacks.checkpoints import AtomicCheckpointIO, resume_point


@contextmanager
def full_disk():
    """Limit the size of written files to 4 KiB in the block, so that writing fails.

    The limit also applies to the log of this process: print nothing in the block.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path):
    file = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1, "weights": torch.arange(3)}, file)
    with pytest.raises((OSError, RuntimeError)), full_disk():
        writer.save_checkpoint({"step": 2, "weights": torch.zeros(10_000)}, file)
    assert torch.load(file, weights_only=True)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_loses_no_earlier_tensors(tmp_path):
    file = tmp_path / "explanations.safetensors"
    write_tensors(file, {"a/images": torch.ones(2)}, {})
    with pytest.raises(OSError, match="large|space"), full_disk():
        write_tensors(file, {"a/images": torch.zeros(10_000)}, {})
    assert load_file(file)["a/images"].tolist() == [1, 1]


def test_json_numbers_that_are_not_finite_become_null(tmp_path):
    write_json(tmp_path / "m.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": None, "b": [None, 1.5]}


class Exploit:
    def __reduce__(self):
        return (exit, (7,))


@pytest.mark.parametrize("spoil", ["cut", "code"])
def test_a_damaged_or_hostile_checkpoint_is_refused(tmp_path, spoil):
    file = tmp_path / "last.ckpt"
    torch.save({"w": torch.zeros(9), "x": Exploit() if spoil == "code" else 0}, file)
    if spoil == "cut":
        file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"last\.ckpt is truncated, damaged or not plain data"):
        resume_point(file)


def test_without_a_checkpoint_a_stage_starts_anew(tmp_path):
    assert resume_point(tmp_path / "none.ckpt") is None
