"""The class of each output of a network, from the names of folders."""

import pytest
from torchvision.models import ResNet50_Weights

from cwx.data.output_names import output_names
from cwx.data.wordnet import imagenet_synsets

CATEGORIES = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]


def test_as_many_folders_as_outputs_are_in_their_order_which_is_not_known():
    names = output_names(["10", "9", "8"], 3, None)
    assert names.names == ("8", "9", "10")
    assert not names.is_known


def test_the_names_in_a_file_decide_the_order():
    names = output_names(["great white shark", "Cat"], 3, ["cat", "Great-White_Shark", "dog"])
    assert names.names == ("Cat", "great white shark", "dog")
    assert names.is_known


def test_names_in_a_file_that_are_of_other_classes_do_not_count():
    assert output_names(["a", "b"], 2, ["LABEL_0", "LABEL_1"]).names == ("a", "b")
    assert output_names(["a", "b"], 2, ["a", "b", "c"]).names == ("a", "b")


def test_numbers_are_the_outputs():
    names = output_names(["007", "2"], 10, None)
    assert names.names == ("0", "1", "2", "3", "4", "5", "6", "007", "8", "9")
    assert names.is_known


@pytest.mark.parametrize(
    ("folders", "indices"),
    [
        (["n01443537", "n01440764"], {"n01440764": 0, "n01443537": 1}),
        (["Goldfish", "great_white_shark"], {"Goldfish": 1, "great_white_shark": 2}),
        # A dog and a garment, which differ in their first letter alone.
        (["cardigan", "tench"], {"cardigan": 474, "tench": 0}),
        (["999", "3"], {"3": 3, "999": 999}),
    ],
)
def test_some_classes_of_imagenet(folders, indices):
    names = output_names(folders, 1000, None)
    assert len(set(names.names)) == 1000
    assert names.is_known
    assert {name: names.names.index(name) for name in folders} == indices


def test_the_synsets_of_imagenet_are_in_the_order_of_its_names():
    assert len(imagenet_synsets()) == len(CATEGORIES) == 1000
    # Tench, goldfish, …, toilet tissue.
    assert imagenet_synsets()[0] == "n01440764"
    assert imagenet_synsets()[-1] == "n15075141"


@pytest.mark.parametrize(
    ("folders", "outputs", "message"),
    [
        (["a", "b", "c"], 2, "the network has 2 outputs, but the folder has 3 classes"),
        (["a", "b"], 5, "name all 5 in the order of the outputs.*--classes"),
        (["a", "n01440764"], 1000, "--classes"),
        # Twice the same output.
        (["7", "007"], 10, "--classes"),
        (["7", "12"], 10, "--classes"),
    ],
)
def test_unknown_outputs_are_refused(folders, outputs, message):
    with pytest.raises(ValueError, match=message):
        output_names(folders, outputs, None)
