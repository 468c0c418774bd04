"""The poisoned test images of an attack_result, wherever its author had them."""

import logging

import numpy as np
import pytest
import torch
from support.weight_files import attack_result, container
from torch import nn

from cwx.training.importing.backdoor_test import FOLDER, backdoor_test

NETWORK = nn.Linear(2, 3)


def test_the_images_beside_the_file_are_given_with_their_labels(tmp_path):
    attack_result(NETWORK, tmp_path, target=0, images={4: 1, 7: 2})
    images = backdoor_test(tmp_path / "attack_result.pt")
    assert images == backdoor_test(tmp_path)
    assert [
        (image.file.relative_to(tmp_path), image.label, image.original) for image in images
    ] == [
        (type(tmp_path)(FOLDER, "1", "4.png"), 0, 1),
        (type(tmp_path)(FOLDER, "2", "7.png"), 0, 2),
    ]


def test_images_that_are_not_there_are_left_out_and_logged(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    attack_result(NETWORK, tmp_path)
    (tmp_path / FOLDER / "1" / "4.png").unlink()
    assert len(backdoor_test(tmp_path)) == 1
    assert "1 of 2 poisoned test images are not in" in caplog.text


def entry(path, labels=(0, 1)):
    state = container(FOLDER, {4: 1}, 0)
    state["bd_data_container"]["data_dict"][np.int64(4)] = {"path": path, "other_info": [*labels]}
    return state


@pytest.mark.parametrize(
    "state",
    [
        entry("/etc/passwd"),
        entry("../../1/4.png"),
        entry("../secret.png"),
        entry("bd_test_dataset/../4.png"),
        entry("x/1/4.png", labels=(-1, 1)),
        entry("x/1/4.png", labels=(True, 1)),
        entry("x/1/4.png", labels=(0,)),
        entry(None),
        entry("x/1/4.png\0"),
    ],
    ids=range(9),
)
def test_no_path_of_the_file_leads_out_of_the_folder(tmp_path, state):
    folder = tmp_path / "result"
    folder.mkdir()
    (tmp_path / "secret.png").touch()
    attack_result(NETWORK, folder, write=False, bd_test=state)
    with pytest.raises(ValueError, match="none of the 1 poisoned test images .*: copy this folder"):
        backdoor_test(folder)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    folder = tmp_path / "result"
    (folder / FOLDER).mkdir(parents=True)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "4.png").touch()
    (folder / FOLDER / "1").symlink_to(tmp_path / "1")
    attack_result(NETWORK, folder, write=False, bd_test=entry("x/1/4.png"))
    with pytest.raises(ValueError, match="none of the 1 poisoned"):
        backdoor_test(folder)


@pytest.mark.parametrize("bd_test", [None, {}, {"bd_data_container": {"data_dict": {}}}, 3])
def test_a_file_without_poisoned_images_is_refused(tmp_path, bd_test):
    attack_result(NETWORK, tmp_path, bd_test=bd_test)
    with pytest.raises(ValueError, match="names no poisoned test images"):
        backdoor_test(tmp_path)
    torch.save(NETWORK.state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match="names no poisoned test images"):
        backdoor_test(tmp_path / "net.pt")
