"""A setting that names a class means the class of that very name, or is refused."""

import io
import math
import unicodedata

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cwx.functional.class_names import class_index, class_indices, readings
from cwx.functional.label_noise import Asymmetric

NAMES = ("cat", "dog", "frog", "horse")
# Names that YAML or Hydra reads as something else, or nearly so.
ODD = [
    "0", "1", "5", "10", "007", "010", "08", "-1", "+5", "1_000", "1000", "0x10", "16", "0b11", "3",
    "1e3", "1.0", "2.", ".5", "-.5", "1:30", "90", "190:20:30.15", "2001-01-01", "12:30:45",
    "true", "True", "false", "yes", "no", "on", "off", "y", "n", "null", "Null", "~", "nan", "NaN",
    ".nan", "inf", "-inf", ".inf", "-.inf", "1e", "e3", "0o7", "_1", "a b", "std",
]  # fmt: skip


def index(value, classes=NAMES):
    return class_index(value, classes, "corruption.target")


def from_hydra(text):
    """A value as on the command line; ``None`` in a list if it cannot be parsed."""
    return OverridesParser.create().parse_override(f"key={text}").value()


def from_file(text):
    """A value as from a configuration file."""
    return OmegaConf.to_container(OmegaConf.load(io.StringIO(f"key: {text}\n")))["key"]


@pytest.mark.parametrize("position", range(4))
def test_a_class_is_selected_by_name_or_index(position):
    assert index(NAMES[position]) == index(position) == position


def test_the_name_of_a_folder_wins_over_an_index():
    folders = ("1", "2", "3", "4", "5")
    assert [index(number, folders) for number in range(1, 6)] == list(range(5))
    assert [index(str(number), folders) for number in range(1, 6)] == list(range(5))
    digits = tuple(map(str, range(10)))
    assert [index(number, digits) for number in range(10)] == list(range(10))


@pytest.mark.parametrize("read", [from_hydra, from_file], ids=["command line", "file"])
@pytest.mark.parametrize("name", ODD)
def test_an_unquoted_name_gives_its_class_or_asks_for_quotes(name, read):
    if read is from_hydra and name == "~":
        pytest.skip("Hydra does not parse it")
    value = read(name)
    assert isinstance(value, str) or any(
        value == reading or (reading != reading and value != value) for reading in readings(name)
    )
    classes = ("cat", name, "dog")
    message = f"write the name in quotes, as in \"corruption.target='{name}'\""
    outcome = name_or_refusal(value, classes)
    assert outcome == name or outcome.endswith(message)
    # Beside all the other odd names too, it never gives another class.
    outcome = name_or_refusal(value, ODD)
    assert outcome == name or "write the name in quotes, as in" in outcome
    quoted = read(f"'{name}'")
    assert index(quoted, classes) == 1
    assert name_or_refusal(quoted, ODD) == name


def name_or_refusal(value, classes):
    try:
        return classes[index(value, classes)]
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", ["2", "1000", "true", "null", "1e3", "007", "yes", "1_000", "nan"])
def test_a_name_alone_of_its_reading_needs_no_quotes_on_the_command_line(name):
    classes = ("cat", name, "dog")
    if name == "1_000":
        with pytest.raises(ValueError, match="in quotes"):
            index(from_hydra(name), classes)
    else:
        assert index(from_hydra(name), classes) == 1


REFUSED = [
    (
        "dgo",
        NAMES,
        "corruption.target is 'dgo', and there is no such class among the 4: the neares",
    ),
    ("Horse", NAMES, "the nearest are 'horse', "),
    ("", NAMES, "corruption.target is ''"),
    ("2", NAMES, "give one of the names or an index in 0-3"),
    (4, NAMES, "corruption.target is 4, and there is no such class among the 4: give a name or an"),
    (-1, NAMES, "corruption.target is -1, and there is no such class"),
    (True, NAMES, "corruption.target is True, and no class has such a name: there are 'cat'"),
    (None, NAMES, "corruption.target is None, and no class has such a name"),
    (1.0, NAMES, "corruption.target is 1.0, and no class has such a name"),
    (math.nan, NAMES, "corruption.target is nan"),
    ([1], NAMES, "give the name or the index of a class"),
    (0, ("1", "2", "3"), "is 0, and no class is called '0': .* give one of '1', '2', '3'"),
    (0, ("cat", "3", "dog"), "where names of classes are numbers, a number is a name"),
    (2, ("001", "002", "003"), "2, which is how YAML reads '002': write the name in quotes"),
    (7, ("7", "007"), "7, which is how YAML reads '7', '007': write the name in quotes"),
    (False, ("cat", "no"), "False, which is how YAML reads 'no': write the name in quotes"),
    (None, ("cat", "~"), "None, which is how YAML reads '~': write the name in quotes"),
    (True, ("true", "yes"), "reads 'true', 'yes': write the name in quotes"),
]


@pytest.mark.parametrize(("value", "classes", "message"), REFUSED)
def test_a_value_that_names_no_class_is_refused(value, classes, message):
    with pytest.raises(ValueError, match=message):
        index(value, classes)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_form_of_an_accented_letter_does_not_matter(form):
    assert index(unicodedata.normalize(form, "é"), ("cat", unicodedata.normalize("NFC", "é"))) == 1
    assert index(unicodedata.normalize(form, "é"), ("cat", unicodedata.normalize("NFD", "é"))) == 1


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ([], NAMES, "method.iscp.classes is empty: name one class or more"),
        (["dog", "cat", "dog"], NAMES, "has class 'dog' .index 1. more than once"),
        (["dog", 1], NAMES, "has class 'dog' .index 1. more than once"),
        ([2, "2"], ("1", "2"), "has class '2' .index 1. more than once"),
    ],
)
def test_a_list_names_each_class_once(values, classes, message):
    with pytest.raises(ValueError, match=message):
        class_indices(values, classes, "method.iscp.classes")


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ({"cat": "dog", 0: "frog"}, "corruption.kind.to has class 'cat' .index 0. more than once"),
        ({"cat": 0}, "corruption.kind.to replaces class 'cat' .index 0. by itself"),
        ({"cat": "dgo"}, "corruption.kind.to for class 'cat' is 'dgo'"),
        ({"cta": "dog"}, "corruption.kind.to is 'cta'"),
        ({}, "corruption.kind.to is empty"),
    ],
)
def test_asymmetric_noise_replaces_each_class_once_by_another(to, message):
    with pytest.raises(ValueError, match=message):
        Asymmetric(to=to).noisy_labels(NAMES)


def test_asymmetric_noise_between_folders_of_numbers():
    folders = ("1", "2", "3")
    assert Asymmetric(to={1: 3, "2": 1}).noisy_labels(folders).tolist() == [2, 0, 2]
