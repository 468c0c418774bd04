"""A full or read-only disk: a message with the path and the remedy, and a final status."""

import errno
import io
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from cwx.cli.failures import explain_failure
from cwx.cli.log_file import LogFile
from cwx.storage import atomic as atomic_module
from cwx.storage.atomic import WriteError, atomic, write_json, write_text
from cwx.storage.run_status import read_status
from cwx.storage.trajectories import TrajectoryStore
from cwx.study.results import Results
from cwx.training.callbacks.checkpoints import AtomicCheckpointIO

NUMBERS = [
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO,
]  # fmt: skip


class FullDisk:
    """Lets `mkstemp` or `fsync` fail, as long as `is_full()`."""

    def __init__(self, monkeypatch, number, is_full=lambda: True):
        self.number, self.is_full = number, is_full
        for module, name in ((atomic_module.tempfile, "mkstemp"), (atomic_module.os, "fsync")):
            monkeypatch.setattr(module, name, self.failing(getattr(module, name)))

    def failing(self, function):
        def call(*args, **kwargs):
            if self.is_full():
                raise OSError(self.number, os.strerror(self.number))
            return function(*args, **kwargs)

        return call


@pytest.mark.parametrize("number", NUMBERS)
def test_an_error_names_the_file_the_reason_and_the_remedy(tmp_path, monkeypatch, number):
    write_text(tmp_path / "a.json", "old")
    FullDisk(monkeypatch, number)
    with pytest.raises(WriteError) as failed:
        write_text(tmp_path / "a.json", "new")
    message = explain_failure(failed.value, "runs/x")
    assert message.startswith(f"{tmp_path}/a.json could not be written ({os.strerror(number)}): ")
    assert message.endswith(", then continue with resume=runs/x")
    assert (tmp_path / "a.json").read_text() == "old"
    assert [*tmp_path.iterdir()] == [tmp_path / "a.json"]


def test_an_error_that_another_library_wraps_is_named_too(tmp_path):
    with pytest.raises(WriteError), atomic(tmp_path / "a"):  # noqa: PT012
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("PytorchStreamWriter failed") from error
    with pytest.raises(RuntimeError), atomic(tmp_path / "a") as file:  # noqa: PT012
        file.write(b"")
        raise RuntimeError("something else")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("frees", [True, False])
def test_the_final_status_is_written_on_a_full_disk(tmp_path, monkeypatch, number, frees):
    """In the space set aside, or over the earlier status."""
    folder = tmp_path / "run"
    results = Results(folder)
    running = results.running(experiment="x", resumed=False)
    with pytest.raises(WriteError), running:  # noqa: PT012
        reserve = folder / ".reserve"
        assert reserve.stat().st_size > 10_000
        FullDisk(monkeypatch, number, (lambda: reserve.exists()) if frees else lambda: True)
        write_json(folder / "metrics.json", {})
    status = read_status(folder)
    assert status["state"] == "failed"
    assert not (folder / ".reserve").exists()


def test_a_run_that_ends_leaves_no_reserve(tmp_path):
    results = Results(tmp_path / "run")
    with results.running(experiment="x", resumed=False):
        pass
    assert not (tmp_path / "run/.reserve").exists()


def test_a_checkpoint_on_a_full_disk_names_its_file(tmp_path):
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="space"):
        full.write(b"x")
    file = tmp_path / "a.ckpt"
    limited = atomic_module.os.fdopen

    class Full(io.RawIOBase):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def writable(self):
            return True

    def fdopen(descriptor, mode):
        limited(descriptor, mode).close()
        return Full()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic_module.os, "fdopen", fdopen)
        with pytest.raises(WriteError, match=r"a\.ckpt could"):
            AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(100_000)}, file)
    assert not file.exists()


def test_a_full_disk_costs_the_log_one_line(capfd, tmp_path):
    handler = LogFile("/dev/full")
    logger = logging.Logger("test")
    logger.addHandler(handler)
    for _ in range(50):
        logger.info("a line")
    handler.close()
    output = capfd.readouterr().err
    assert output.count("\n") == 1
    assert "gets no further lines: No space left on device" in output


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_complete_entries_of_a_read_only_store_can_be_used(tmp_path, monkeypatch, number):
    store = TrajectoryStore(tmp_path)
    store.set_user(tmp_path / "run", {})
    path = store.path({"a": 1})
    path.mkdir()
    (path / "complete.json").write_text('{"epochs": [0]}')

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with store.lock({"a": 1}, "waiting"):
        pass
    with (
        pytest.raises(ValueError, match=r"cannot be written .*: name another folder by store="),
        store.lock({"a": 2}, "waiting"),
    ):
        raise AssertionError("an incomplete entry was locked")
    monkeypatch.undo()
    FullDisk(monkeypatch, number)
    with store.lock({"a": 1}, "waiting"):
        pass
    assert json.loads((path / "complete.json").read_text()) == {"epochs": [0]}
