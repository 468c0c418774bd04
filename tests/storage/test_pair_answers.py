"""Pairs of neurons in a run's folder, and files of answers from anywhere."""

import json
import os
import re

import pytest
from support.pair_studies import make_pair_run, make_study, volunteer, write_answers

from cwx.errors import UserError
from cwx.storage.neuron_pairs import NEURONS, PAIRS, read_pair_study
from cwx.storage.pair_answers import MAX_BYTES, read_answers


@pytest.fixture(scope="module")
def study():
    return make_study([n / 10 for n in range(10)], pairs=20, repeated=0.1)


def test_answers_are_read_in_the_order_shown(study, tmp_path):
    answers = volunteer(study, "Zoë ", follows=1)
    shuffled = dict(reversed(answers.answers.items()))
    file = write_answers(
        tmp_path / "a.json",
        study,
        type(answers)(volunteer="Zoë ", answers=shuffled, seconds=answers.seconds),
    )
    read = read_answers(file, study)
    assert read.volunteer == "Zoë"
    assert list(read.answers.items()) == list(shuffled.items())
    assert read.seconds == answers.seconds


ENTRY = {"pair": 1, "answer": "left", "seconds": 1}
HOSTILE = "\x1b[2J\nx"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": "0" * 64}, "answers about other pairs .study 000000000000, not .*name the run"),
        ({"study": HOSTILE}, "answers about other pairs"),
        ({"study": None}, "does not name its study"),
        ({"volunteer": 3}, "the volunteer is not a name of 1 to 100 characters"),
        ({"volunteer": " "}, "the volunteer is not a name"),
        ({"volunteer": "x" * 101}, "the volunteer is not a name"),
        ({"answers": []}, "it has no answers"),
        ({"answers": {"1": "left"}}, "it has no answers"),
        ({"answers": [3]}, "answer 1 is a number, not an object"),
        ({"answers": [ENTRY, {**ENTRY, "pair": 999}]}, "answer 2 is about the pair 999, which"),
        ({"answers": [ENTRY, ENTRY]}, "the pair 1 is answered twice"),
        ({"answers": [{**ENTRY, "pair": True}]}, "answer 1 does not have the number of a pair"),
        ({"answers": [{**ENTRY, "pair": "1"}]}, "answer 1 does not have the number of a pair"),
        ({"answers": [{**ENTRY, "pair": 1.0}]}, "answer 1 does not have the number of a pair"),
        ({"answers": [{**ENTRY, "answer": HOSTILE}]}, "answer 1 is none of left, right, cannot"),
        ({"answers": [{**ENTRY, "answer": ["left"]}]}, "answer 1 is none of left"),
        ({"answers": [{**ENTRY, "seconds": None}]}, "answer 1 has no seconds"),
        ({"answers": [{**ENTRY, "seconds": float("nan")}]}, "answer 1 took nan seconds"),
        ({"answers": [{**ENTRY, "seconds": -1}]}, "answer 1 took -1 seconds"),
        ({"answers": [{**ENTRY, "seconds": float("inf")}]}, "answer 1 took inf seconds"),
    ],
)
def test_a_file_that_is_not_about_the_study_is_refused_in_one_line(
    study, tmp_path, changes, message
):
    file = write_answers(tmp_path / "a.json", study, volunteer(study, "a", follows=1), **changes)
    with pytest.raises(UserError, match=message) as caught:
        read_answers(file, study)
    text = str(caught.value)
    assert text.startswith(str(file))
    assert text.isprintable()
    assert len(text) < len(str(file)) + 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file of answers .Expecting value"),
        (b"no JSON", "is no file of answers"),
        (b"\xff\xfe", "is no file of answers"),
        (b"[]", "it holds a list, not an object"),
        (b'{"study": 1, "study": 2}', "the key 'study' is there twice"),
        (b"[" * 100_000, "nested more than"),
        (b" " * (MAX_BYTES + 1), "cannot be read: larger than 4,194,304 bytes"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(study, tmp_path, content, message):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_answers(file, study)
    assert str(caught.value).isprintable()


def test_what_is_no_file_is_refused_without_waiting(study, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("no.json", "cannot be read: No such file"),
        ("pipe", "a named pipe"),
        ("", "a folder"),
    ):
        with pytest.raises(UserError, match=message):
            read_answers(tmp_path / name, study)


def test_the_digest_is_that_of_what_volunteers_see(tmp_path):
    first = read_pair_study(make_pair_run(tmp_path / "0"))
    assert read_pair_study(make_pair_run(tmp_path / "1")).digest == first.digest
    # Another σ changes LC, not what was seen.
    assert read_pair_study(make_pair_run(tmp_path / "2", lc=0.5)).digest == first.digest
    other = read_pair_study(make_pair_run(tmp_path / "3", picture_sha256="x"))
    assert other.digest != first.digest
    assert read_pair_study(make_pair_run(tmp_path / "4", pairs=59)).digest != first.digest


@pytest.mark.parametrize(
    ("file", "pattern", "text"),
    [
        (PAIRS, r"^pair,", "pear,"),
        (PAIRS, r"(?s)\n.*", "\n"),
        (PAIRS, r"\n2,", "\n1,"),
        (PAIRS, r"\n1,\d+,", "\n1,1000,"),
        (PAIRS, r"\n1,", "\nx,"),
        (PAIRS, r",\d+\n$", ",999\n"),
        (NEURONS, r"\n2,", "\n1,"),
        (NEURONS, r"(\n1,.*?,.*?,.*?),.*?,", r"\1,nan,"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, file, pattern, text):
    folder = make_pair_run(tmp_path)
    content = (folder / file).read_text()
    damaged = re.sub(pattern, text, content, count=1)
    assert damaged != content
    (folder / file).write_text(damaged)
    with pytest.raises(ValueError, match="is damaged"):
        read_pair_study(folder)


def test_the_tables_of_a_run_are_read_as_written(tmp_path):
    study = read_pair_study(make_pair_run(tmp_path, neurons=5, pairs=10, repeated=0.5))
    assert len(study.pairs) == 15
    assert [pair.repeats for pair in study.pairs.values()].count(None) == 10
    assert sorted(values["lc"] for values in study.statistics.values()) == [0.2, 0.4, 0.6, 0.8, 1]
    assert json.dumps(study.digest)[1:-1].isalnum()
