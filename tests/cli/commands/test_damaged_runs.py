"""What `cwx ls` and `cwx report` leave out because it cannot be read is named in one line."""

import json
import os
from pathlib import Path

import pytest
from support.run_folders import make_run, write

from cwx.cli.commands import ls, report
from cwx.errors import UserError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, rate in (("a", 0.5), ("b", 0.5), ("c", 0.1)):
        config = {"corruption": {"rate": rate, "target": 2}, "seed": 3}
        choices = {"corruption": "badnets", "data": "digits"}
        make_run(Path("runs", name), config=config, choices=choices)
    return tmp_path


def listed(capsys, *argv):
    """The folders that `cwx ls` shows, and its lines on standard error."""
    ls.main([*argv, "--json"])
    output, errors = capsys.readouterr()
    return [run["folder"] for run in json.loads(output)], errors.splitlines()


DAMAGE = {
    "empty": b"", "truncated": b"{", "binary": bytes(range(256)), "a list": b"- 1\n",
    "a number": b"5\n", "a null": b"null\n", "aliases": b"a: &a [1]\nb: *a\n", "missing": None,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.yaml", ["corruption.rate=0.5"]),
        ("config.yaml", ["seed=*"]),
        ("hydra.yaml", ["corruption=badnets"]),
        ("hydra.yaml", ["data=dig*", "seed=3"]),
    ],
)
def test_a_run_that_a_filter_cannot_judge_is_named(capsys, damage, name, words):
    intact, errors = listed(capsys, *words)
    assert "runs/b" in intact
    assert errors == []
    file = Path("runs/b/.hydra", name)
    file.unlink()
    if DAMAGE[damage] is not None:
        file.write_bytes(DAMAGE[damage])
    folders, (line,) = listed(capsys, *words)
    assert folders == [folder for folder in intact if folder != "runs/b"]
    assert line.startswith(f"cwx: 1 run may match, but cannot be read: runs/b ({name} ")


def test_all_damaged_runs_are_counted_also_without_a_match(capsys):
    for number in range(14):
        make_run(Path(f"runs/x{number}"))
        write(Path(f"runs/x{number}/.hydra/config.yaml"), "")
    folders, (line,) = listed(capsys, "corruption.rate=0.5")
    assert folders == ["runs/a", "runs/b"]
    assert line.startswith("cwx: 14 runs may match, but cannot be read: ")
    assert line.endswith(") and 4 more")
    write(Path("damaged/.hydra/config.yaml"), "")
    write(Path("damaged/status.json"), '{"state": "finished"}')
    with pytest.raises(UserError, match="no run has a setting"):
        ls.main(["damaged", "seed=1"])
    assert "cwx: 1 run may match, but cannot be read: damaged (" in capsys.readouterr().err


def test_a_damaged_run_that_another_filter_excludes_is_not_named(capsys):
    write(Path("runs/b/.hydra/config.yaml"), "{")
    assert listed(capsys, "corruption=none", "seed=3")[1] == []
    assert listed(capsys, "seed=3", "--state", "failed")[1] == []
    assert listed(capsys, "seed=3", "--experiment", "cifar10/*")[1] == []
    assert listed(capsys)[1] == []


def test_a_run_of_an_unknown_experiment_is_named(capsys):
    write(Path("runs/b/status.json"), "{")
    folders, (line,) = listed(capsys, "--experiment", "digits/*")
    assert folders == ["runs/a", "runs/c"]
    assert "runs/b (status.json cannot be read: " in line


def test_a_run_with_a_damaged_table_of_classes_is_named(capsys):
    for name in ("a", "b", "c"):
        write(Path("runs", name, "tables/classes.csv"), "index,class\n0,cat\n1,dog\n2,bird\n")
    assert listed(capsys, "corruption.target=bird") == (["runs/a", "runs/b", "runs/c"], [])
    Path("runs/b/tables/classes.csv").write_bytes(b"\xff\xff")
    folders, (line,) = listed(capsys, "corruption.target=bird")
    assert folders == ["runs/a", "runs/c"]
    assert "runs/b (tables/classes.csv cannot be read: " in line


@pytest.fixture
def unreadable(monkeypatch):
    """Names of folders that may not be read."""
    names = set()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return names


@pytest.fixture
def pages(monkeypatch):
    from cwx.report import sweep_page

    calls = []
    monkeypatch.setattr(
        sweep_page, "write_report", lambda *arguments: calls.append(arguments) or Path("page.html")
    )
    return calls


def test_a_report_names_the_folders_that_it_cannot_read(unreadable, pages, capsys):
    make_run(Path("runs/d/e"))
    make_run(Path("runs/a/f/g"))
    unreadable |= {"d", "f"}
    report.main(["runs"])
    output, errors = capsys.readouterr()
    assert output == "the page is page.html\n"
    assert errors == (
        "cwx: the page leaves out runs/a/f (the folder cannot be read: Permission denied), "
        "runs/d (the folder cannot be read: Permission denied)\n"
    )
    report.main(["runs/a", "runs/d"])
    assert "runs/d (the folder" in capsys.readouterr().err
    unreadable.clear()
    report.main(["runs"])
    assert capsys.readouterr().err == ""


def test_a_report_of_nothing_that_can_be_read_is_refused(unreadable, pages):
    unreadable |= {"runs"}
    with pytest.raises(UserError, match=r"runs holds no run that can be read \(runs \(the folder"):
        report.main(["runs"])
    Path("nothing").mkdir()
    with pytest.raises(UserError, match="nothing holds no run"):
        report.main(["nothing"])
    assert pages == []
