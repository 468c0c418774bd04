"""`cwx agreement`: the tables, and refusals in one line."""

import json
import subprocess
import sys
from statistics import mean

import pytest
from support.pair_studies import make_pair_run, volunteer, write_answers
from support.paths import ROOT

from cwx.cli.commands import agreement
from cwx.errors import UserError
from cwx.storage.neuron_pairs import NEURONS, PAIRS, read_pair_study


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_pair_run(tmp_path_factory.mktemp("run"), neurons=60, pairs=300, repeated=0.1)


@pytest.fixture
def files(run, tmp_path):
    """Files of a volunteer who follows LC, and of one who answers at random."""
    study = read_pair_study(run)
    people = [("Anna", 0.85), ("Bert", 0.5)]
    return [
        str(
            write_answers(
                tmp_path / f"answers-{name}.json",
                study,
                volunteer(study, name, follows=follows, silent=0.1, seed=seed),
            )
        )
        for seed, (name, follows) in enumerate(people)
    ]


def printed(capsys, *argv):
    agreement.main([str(word) for word in argv])
    return capsys.readouterr().out


def test_simulated_volunteers_agree_as_often_as_they_follow_lc(run, files, capsys):
    content = json.loads(printed(capsys, run, *files, "--json"))
    rows = content["volunteers"]
    assert [row["volunteer"] for row in rows] == ["Anna", "Bert"]
    for row, follows in zip(rows, (0.85, 0.5), strict=True):
        low, high = row["agreement"]["interval"]
        assert low < follows < high
        assert row["answered"] == 300
        assert row["agreement"]["trials"] == 300 - row["cannot_say"] - row["equal_lc"]
        assert row["consistency"]["trials"] > 20
        assert sum(part["trials"] for part in row["tertiles"]) == row["agreement"]["trials"]
        assert row["median_seconds"] == 2
    assert content["mean_agreement"] == mean(row["agreement"]["value"] for row in rows)
    assert abs(content["mean_kappa"]) < 0.2
    assert (content["chance"], len(content["paper"])) == (0.5, 5)
    assert [row["statistic"] for row in content["statistics"]] == [
        "lc", "largest_fraction", "negative_entropy", "depth",
    ]  # fmt: skip
    # In this run, the first three have the same order.
    assert content["statistics"][1]["agreement"] == content["statistics"][0]["agreement"]
    assert content["statistics"][1]["lc_right_where_they_disagree"]["trials"] == 0
    depth = content["statistics"][3]
    assert depth["equal"] > 0
    assert depth["lc_right_where_they_disagree"]["value"] > 0.55


def test_the_tables_state_chance_the_paper_and_intervals(run, files, capsys):
    text = printed(capsys, run, *files)
    lines = [line.split() for line in text.splitlines()]
    rows = {line[0]: line for line in lines if line and line[0] in ("Anna", "Bert", "mean")}
    values = json.loads(printed(capsys, run, *files, "--json"))["volunteers"]
    for row in values:
        shown = f"{100 * row['agreement']['value']:.4g}"
        assert rows[row["volunteer"]][1:5] == ["300", str(row["cannot_say"]), "0", shown]
    assert float(rows["mean"][1]) == pytest.approx(
        50 * sum(row["agreement"]["value"] for row in values), abs=0.05
    )
    for words in (
        "Chance is 50 %.",
        "83.65 to 88.6 %, mean 86.31 %, of five volunteers and 2000 pairs of VGG-16",
        "mean Cohen's kappa ",
        "fraction of the most frequent class",
        "position of the layer",
    ):
        assert words in text
    alone = printed(capsys, run, files[0])
    assert "needs two volunteers" in alone
    assert not any(line.startswith("mean ") for line in alone.splitlines())


def test_the_name_of_a_volunteer_cannot_control_the_terminal(run, tmp_path, capsys):
    study = read_pair_study(run)
    file = write_answers(tmp_path / "a.json", study, volunteer(study, "x\x1b[2J\u202ey", follows=1))
    text = printed(capsys, run, file)
    assert "x\\x1b[2J\\u202ey" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_what_the_command_cannot_use_is_refused_in_one_line(run, files, tmp_path):
    other = make_pair_run(tmp_path / "other", neurons=10, pairs=20)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "text.json").write_text("no JSON")
    damaged = make_pair_run(tmp_path / "damaged", neurons=10, pairs=20)
    (damaged / NEURONS).unlink()
    for argv, message in (
        ([tmp_path / "empty", *files], "has no pairs of neurons .*evaluation=.neuron_pairs."),
        ([tmp_path / "emty", *files], "emty is not there: did you mean .*empty"),
        ([other, *files], "answers-Anna.json has answers about other pairs .* name the run"),
        ([run, files[0], files[0]], "are both of the volunteer Anna: give the last file"),
        ([run, files[0], tmp_path / "empty.json"], "empty.json is no file of answers"),
        ([run, tmp_path / "text.json"], "text.json is no file of answers"),
        ([run, tmp_path / "none.json"], "none.json cannot be read: No such file"),
        ([run], "the following arguments are required: answers.json"),
        ([damaged, *files], f"{NEURONS} cannot be read: No such file"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            agreement.main([str(word) for word in argv])
        assert str(caught.value).isprintable()


def test_a_refusal_has_an_exit_status_and_no_traceback(run, tmp_path):
    (tmp_path / "a.json").write_text("{}")
    command = [sys.executable, ROOT / "run.py", "agreement", run, tmp_path / "a.json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "it does not name its study" in result.stderr


def test_a_refusal_needs_no_heavy_import(run, tmp_path):
    (tmp_path / "a.json").write_text("{}")
    code = (
        "import sys; from cwx.cli.commands import agreement\n"
        f"try: agreement.main([{str(run)!r}, {str(tmp_path / 'a.json')!r}])\n"
        "except ValueError: pass\n"
        "print({'torch', 'scipy', 'sklearn', 'matplotlib'} & {*sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "set()\n"


def test_a_damaged_table_is_refused(run, files, tmp_path):
    folder = make_pair_run(tmp_path / "run", neurons=10, pairs=20)
    (folder / PAIRS).write_text("pair\n1\n")
    with pytest.raises(ValueError, match=r"is damaged \(no column"):
        agreement.main([str(folder), *files])
