"""The files of a bank on the command line of `cwx inspect`."""

import pytest

from cwx.cli.commands.bank_files import bank_files
from cwx.errors import UserError


def test_a_folder_stands_for_its_files_of_weights(tmp_path):
    for name in ("b.pt", "a.safetensors", "c.pth", "notes.txt", "d.ckpt"):
        (tmp_path / name).touch()
    other = tmp_path / "other" / "e.pt"
    other.parent.mkdir()
    other.touch()
    names = [file.name for file in bank_files([tmp_path, other])]
    assert names == ["a.safetensors", "b.pt", "c.pth", "d.ckpt", "e.pt"]


def test_no_bank_is_no_file():
    assert bank_files([]) == []


def test_a_missing_file_and_a_folder_without_weights_are_named(tmp_path):
    with pytest.raises(UserError, match=r"--bank .*missing\.pt does not exist"):
        bank_files([tmp_path / "missing.pt"])
    with pytest.raises(UserError, match="has no file of weights"):
        bank_files([tmp_path])
