"""Distances between classes: WordNet's, the user's, and none."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from support.builders import Blobs

from cwx.cli.config.groups import configuration_folder
from cwx.data import wordnet
from cwx.data.splits import Splits
from cwx.data.taxonomy import File, Flat, WordNet
from cwx.functional.class_similarity import correlation
from cwx.storage import wordnet_nouns

SETTING = "evaluation.neurons.taxonomy"
CAT, DOG, TRUCK = "n02121620", "n02084071", "n04490091"
CIFAR10 = dict(OmegaConf.load(configuration_folder() / "data/cifar10.yaml").source.synsets)


def splits(classes=("cat", "dog", "truck"), synsets=(CAT, DOG, TRUCK)):
    empty = Blobs().load().train.empty()
    return Splits(empty, empty, tuple(classes), synsets)


def test_the_bundled_nouns_are_closed_under_hypernyms():
    nouns = wordnet_nouns.nouns()
    assert len(nouns) == 1861
    roots = [noun.name for noun in nouns.values() if not noun.hypernyms]
    assert roots == ["entity"]
    assert all(hypernym in nouns for noun in nouns.values() for hypernym in noun.hypernyms)
    above = {hypernym for noun in nouns.values() for hypernym in noun.hypernyms}
    # The classes of ImageNet, of which none is above another, and CIFAR-10's deer.
    assert len(nouns.keys() - above) == 1001
    assert (Path(wordnet_nouns.__file__).parent / "WORDNET-LICENSE.txt").is_file()


def paths_up(synset):
    """Every chain of hypernyms from a noun, starting with the noun itself."""
    higher = wordnet_nouns.nouns()[synset].hypernyms
    return [[synset, *path] for h in higher for path in paths_up(h)] or [[synset]]


def reference_distance(a, b):
    return min(
        path_a.index(common) + path_b.index(common)
        for path_a in paths_up(a)
        for path_b in paths_up(b)
        for common in {*path_a} & {*path_b}
    )


def test_a_distance_is_the_shortest_path_through_a_common_hypernym():
    several = [synset for synset, noun in wordnet_nouns.nouns().items() if len(noun.hypernyms) > 1]
    nouns = [*CIFAR10.values(), *several[:12], "n00001740"]
    distances = wordnet.distances(nouns)
    for (i, a), (j, b) in itertools.product(enumerate(nouns), repeat=2):
        assert distances[i, j] == reference_distance(a, b)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        # Tabby and Egyptian cat are both domestic cats (Dong et al., Figure 3).
        ("n02123045", "n02124075", 2),
        # A dog is a canine and a domestic animal: the first of its hypernyms is not always nearest.
        (DOG, "n01317541", 1),
        (DOG, "n02083346", 1),
        (DOG, CAT, 4),
        (CIFAR10["automobile"], TRUCK, 2),
        (CIFAR10["deer"], CIFAR10["horse"], 6),
    ],
)
def test_known_distances(a, b, distance):
    assert wordnet.distances([a, b])[0, 1] == wordnet.distances([b, a])[0, 1] == distance


def test_every_class_of_cifar10_and_imagenet_is_bundled():
    nouns = wordnet_nouns.nouns()
    above = {hypernym for noun in nouns.values() for hypernym in noun.hypernyms}
    for classes in (list(CIFAR10.values()), [noun for noun in nouns if noun not in above]):
        distances = wordnet.distances(classes)
        assert torch.equal(distances, distances.T)
        assert (distances.diagonal() == 0).all()
        # The correlation of classes is computable from them.
        assert correlation(distances, 1.0).shape == (len(classes),) * 2


def test_distances_are_those_of_nltk():
    nltk = pytest.importorskip("nltk")
    reader = nltk.corpus.wordnet
    try:
        reader.ensure_loaded()
    except LookupError:
        pytest.skip("NLTK has no WordNet here: nltk.download('wordnet')")
    synsets = [*CIFAR10.values(), *list(wordnet_nouns.nouns())[::37]]
    nltk_synsets = [reader.synset_from_pos_and_offset("n", int(synset[1:])) for synset in synsets]
    distances = wordnet.distances(synsets)
    for (i, a), (j, b) in itertools.product(enumerate(nltk_synsets), repeat=2):
        assert distances[i, j] == a.shortest_path_distance(b)


def test_the_distance_of_classes_is_that_of_their_nouns():
    assert torch.equal(WordNet().distances(splits(), SETTING), wordnet.distances([CAT, DOG, TRUCK]))


def test_without_a_taxonomy_all_classes_are_siblings():
    assert Flat().distances(splits(), SETTING).tolist() == [[0, 2, 2], [2, 0, 2], [2, 2, 0]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (splits(synsets=None), "data.source.synsets, or choose taxonomy@evaluation.neurons.tax"),
        (
            splits(("cat", "dog", "fire trucks"), (CAT, DOG, "n12345678")),
            r"'fire trucks', 'n12345678', is not among .*names are trailer_truck .*taxonomy=file",
        ),
        (
            splits(synsets=(CAT, DOG, CAT)),
            "cat, truck have the same WordNet noun.* n02121620: give each",
        ),
    ],
)
def test_classes_without_a_unique_wordnet_noun_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        WordNet().distances(data, SETTING)


def write_file(folder, text, name):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return File(path=str(path))


MATRIX = "x,truck,cat,dog,more\ncat,9,0,2.5,1\ndog,8,2.5,0,1\nmore,1,1,1,0\ntruck,0,9,8,1\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps({"dog": DOG, "cat": CAT, "truck": TRUCK, "bird": "n01503061"})),
        ("a.csv", f"class,synset\ntruck,{TRUCK}\ndog,{DOG}\n\ncat, {CAT}\n"),
        ("a.csv", f"\ufeffname,noun\r\ncat,{CAT}\r\ndog,{DOG}\r\ntruck,{TRUCK}\r\n"),
    ],
)
def test_a_file_may_name_nouns(tmp_path, name, text):
    distances = write_file(tmp_path, text, name).distances(splits(synsets=None), SETTING)
    assert torch.equal(distances, wordnet.distances([CAT, DOG, TRUCK]))


def test_a_file_may_give_distances(tmp_path):
    distances = write_file(tmp_path, MATRIX, "a.csv").distances(splits(synsets=None), SETTING)
    assert distances.tolist() == [[0, 2.5, 9], [2.5, 0, 8], [9, 8, 0]]
    assert distances.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "taxonomy.path is .*a.txt: give a .json or a .csv file"),
        ("a.json", b"\xff\xfe", "cannot be read as text .*: set evaluation.neurons.taxonomy.path"),
        ("a.json", "{", "is not valid JSON .*: correct it"),
        ("a.json", "[" * 100_000, "is not valid JSON"),
        ("a.json", '["cat"]', "is not an object of class names"),
        ("a.json", '{"cat": 7}', "is not an object of class names"),
        ("a.json", f'{{"cat": "{CAT}", "trucks": "{TRUCK}", "dog": "{DOG}"}}', "lacks truck .*nea"),
        ("a.json", f'{{"cat": "{CAT}", "dog": "{DOG}", "truck": "lorry"}}', "'truck', 'lorry', is"),
        ("a.csv", "", "has 0 lines"),
        ("a.csv", "a\nb\nc\n", "the first with 1 cells"),
        ("a.csv", 'a,b\n"c,d\n', "is not valid CSV"),
        ("a.csv", "class,synset\ncat\n", "has 2 lines"),
        ("a.csv", f"class,synset\ncat,{CAT}\ndog\n", "has 1 cells in line 3 and 2 in the first"),
        ("a.csv", f"class,synset\ncat,{CAT}\ncat,{DOG}\n", "has more than once: cat"),
        ("a.csv", f"class,synset\ncat,{CAT}\ndog,{DOG}\n", "lacks truck of the data's 3 classes"),
        ("a.csv", MATRIX.replace("9,0,2.5", "9,0,far"), "'far' as the distance from 'cat' to 'do"),
        ("a.csv", MATRIX.replace("9,0,2.5", "9,0,nan"), "give a number, 0 or more"),
        ("a.csv", MATRIX.replace("9,0,2.5", "9,0,inf"), "give a number, 0 or more"),
        ("a.csv", MATRIX.replace("2.5", "-2.5"), "'-2.5' as the distance"),
        ("a.csv", MATRIX.replace("9,0,2.5", "9,0,2"), "gives 2 .* 2.5 back: .*the same both ways"),
        ("a.csv", MATRIX.replace("9,0,2.5", "9,1,2.5"), "gives 1 .* from 'cat' to 'cat'.* be 0 fr"),
        ("a.csv", MATRIX.replace("2.5", "0"), "distances must be above 0 between two"),
        ("a.csv", MATRIX.replace("truck,0", "lorry,0"), "lacks truck .*nearest to 'truck' are"),
        ("a.csv", MATRIX.replace("x,truck", "x,lorry"), "lacks truck"),
        ("a.csv", MATRIX.replace("dog,more", "cat,more"), "has more than once: cat"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_the_remedy(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        write_file(tmp_path, text, name).distances(splits(), SETTING)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none.csv cannot be read .* choose another by taxonomy@"):
        File(path=str(tmp_path / "none.csv")).distances(splits(), SETTING)
