import pytest
import torch

from cwx.data.datasets.digits import Digits
from cwx.data.splits import ImageSet, Splits, synsets_by_index

DOG, CAT, BIRD = "n02084071", "n02121620", "n01503061"


def test_digits_are_complete_and_split_within_classes():
    splits = Digits().load()
    assert (len(splits.train), len(splits.test)) == (1442, 355)
    assert splits.train.images.shape[1:] == (1, 8, 8)
    assert splits.train.images.max() == 255
    counts = torch.bincount(splits.test.labels)
    assert counts.min() >= 34
    again = Digits().load()
    assert torch.equal(splits.test.images, again.test.images)
    assert splits.synsets is None


def splits_of(classes, synsets):
    empty = ImageSet(torch.zeros(0, 1, 2, 2, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    return Splits(empty, empty, classes, synsets)


@pytest.mark.parametrize("synsets", [None, (CAT, DOG), (DOG, DOG)])
def test_classes_may_have_synsets(synsets):
    assert splits_of(("cat", "dog"), synsets).synsets == synsets


@pytest.mark.parametrize(
    ("synsets", "message"),
    [
        ((), "0 synsets for 2 classes: give one for each"),
        ((CAT,), "1 synsets for 2 classes"),
        ((CAT, DOG, BIRD), "3 synsets for 2 classes"),
        *(
            ((CAT, wrong), "synset of class 'dog' is '.*': give the id of a WordNet 3.0 noun")
            for wrong in (
                "",
                "dog",
                DOG[:-1],
                f"{DOG}0",
                f"{DOG}\n",
                f" {DOG}",
                DOG.upper(),
                f"v{DOG[1:]}",
                # A Unicode digit, but not an ASCII digit.
                f"{DOG[:-1]}\N{ARABIC-INDIC DIGIT ONE}",
            )
        ),
    ],
)
def test_invalid_synsets_are_refused(synsets, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        splits_of(("cat", "dog"), synsets)


CLASSES = ("bird", "cat", "7")


@pytest.mark.parametrize(
    ("named", "synsets"),
    [
        (None, None),
        ({"cat": CAT, "7": DOG, "bird": BIRD}, (BIRD, CAT, DOG)),
        # As YAML reads the name.
        ({7: DOG, "cat": CAT, "bird": BIRD}, (BIRD, CAT, DOG)),
    ],
)
def test_synsets_by_name_follow_the_order_of_the_classes(named, synsets):
    assert synsets_by_index(named, CLASSES) == synsets


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"car": CAT, "bird": BIRD, "7": DOG},
            r"data\.source\.synsets is 'car', and there is no such class among the 3: the nearest "
            r"are 'cat', 'bird', '7'; give one of the names; data\.source\.synsets=null gives none",
        ),
        ({"cat": CAT}, "no synset to 'bird' and 1 more of the 3 classes: .*=null"),
        ({}, "data.source.synsets is empty"),
        # Both are the class 7.
        ({7: DOG, "7": CAT, "cat": CAT, "bird": BIRD}, "has class '7' .index 2. more than once"),
        ({0: DOG}, "is 0, and no class is called '0': where names of classes are numbers"),
    ],
)
def test_synsets_that_do_not_fit_the_classes_are_refused(named, message):
    with pytest.raises(ValueError, match=message):
        synsets_by_index(named, CLASSES)


@pytest.mark.parametrize(
    ("count", "expected"), [(3, [0, 3, 6]), (4, [0, 2, 5, 7]), (10, None), (99, None), (None, None)]
)
def test_spread_selects_evenly_spaced_images(count, expected):
    whole = ImageSet(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10))
    part = whole.spread(count)
    assert part.labels.tolist() == (expected or list(range(10)))
    assert part.images.flatten().tolist() == part.labels.tolist()


@pytest.mark.parametrize("period", [1, 2, 5, 10, 20])
def test_spread_gives_each_class_its_share_in_any_order_of_the_labels(period):
    """Evenly spaced images of labels that repeat would be of few classes."""
    labels = torch.arange(1000) // (20 // period) % 10
    whole = ImageSet(torch.zeros(1000, 1, 1, 1, dtype=torch.uint8), labels)
    for count in (10, 50, 100, 500):
        indices = whole.spread_indices(count)
        assert len(indices.unique()) == count
        assert torch.equal(indices, indices.sort().values)
        assert whole.spread(count).labels.bincount(minlength=10).tolist() == [count // 10] * 10


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cat", ""), "names a class '': give a text that is not empty"),
        (("cat", " "), "names a class ' '"),
        (("cat", 7), "names a class 7"),
        (("cat", "dog", "cat"), "names 2 classes 'cat': give each class a name of its own"),
    ],
)
def test_names_of_classes_are_unique_texts(classes, message):
    with pytest.raises(ValueError, match=message):
        splits_of(classes, None).check()
