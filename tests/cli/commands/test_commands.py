"""`cwx ls`, `cwx report` and the way to them, on folders that no study has made."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_folders import make_run, make_sweep

from cwx.cli import app
from cwx.cli.commands import ls, report
from cwx.cli.commands.run_filters import kept, setting
from cwx.cli.tables import plain, table
from cwx.errors import UserError
from cwx.storage.locks import writing
from cwx.storage.quantities import size
from cwx.storage.runs import Run

# Clears the screen, changes the title, hides what follows, turns the line around.
HOSTILE = "\x1b[2J\x1b]0;owned\x07 a\nb\r\x08\x9b31m \u202etxt.exe [red]"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder to work in, with runs of three kinds and a sweep."""
    monkeypatch.chdir(tmp_path)
    config = {
        "corruption": {"_target_": "x.Y", "rate": 0.5, "seed": "${seed}"},
        "seed": 3, "list": [1, 2], "flag": True, "none": None,
    }  # fmt: skip
    make_run(
        Path("runs/digits/quickstart/new"), started="2026-11-21T12:00:00+00:00",
        metrics={"fidelity/ratio": 0.25, "other": 1.0}, overrides=["seed=3"], config=config,
        choices={"corruption": "badnets", "data": "digits"},
    )  # fmt: skip
    make_run(
        Path("runs/cifar10/cwx/old"), state="failed", experiment="cifar10/cwx small",
        started="2026-11-19T12:00:00+00:00", metrics={"fidelity/ratio": 0.75}, seconds=7200.0,
        choices={"corruption": "none"}, config={"corruption": {"_target_": "z"}, "seed": 0},
    )  # fmt: skip
    make_run(Path("runs/cut"), state="running", started="2026-11-20T12:00:00+00:00", seconds=None)
    make_sweep(
        Path("runs/sweep"), [f"seed={n}" for n in range(11)], common=["scale=small"], begun=11,
        swept=["seed=range(11)"],
    )  # fmt: skip
    return tmp_path


def listed(capsys, *argv):
    ls.main(argv)
    return capsys.readouterr().out


def folders(capsys, *argv):
    return [run["folder"] for run in json.loads(listed(capsys, "--json", *argv))]


def test_runs_are_listed_newest_first_and_jobs_in_their_order(runs, capsys):
    found = folders(capsys)
    jobs = [f"runs/sweep/{n}" for n in range(11)]
    assert found == ["runs/digits/quickstart/new", *jobs, "runs/cut", "runs/cifar10/cwx/old"]
    assert folders(capsys, "--reverse") == [
        "runs/cifar10/cwx/old", "runs/cut", *jobs[::-1], "runs/digits/quickstart/new",
    ]  # fmt: skip


def test_a_line_tells_when_what_how_and_how_well(runs, capsys):
    lines = listed(capsys).splitlines()
    assert lines[0].split() == ["run", "experiment", "started", "state", "time", "fidelity",
                                "settings"]  # fmt: skip
    assert lines[1].split() == ["ratio"]
    new = next(line for line in lines if "quickstart/new" in line)
    assert "digits/quickstart" in new
    assert "2026-11-21" in new
    for word in ("finished", "1m00s", "0.25", "seed=3"):
        assert word in new.split()
    (sweep,) = (line for line in lines if line.startswith("runs/sweep"))
    assert sweep.split()[1:] == ["11", "finished"]
    job = lines[lines.index(sweep) + 2]
    assert job.startswith("  1 ")
    assert job.endswith("seed=1")
    assert "scale=small" not in job


def test_a_run_that_failed_says_why(tmp_path, capsys):
    make_run(tmp_path / "x", state="failed", reason="ValueError: no\x1b[2J", overrides=["seed=1"])
    line = listed(capsys, str(tmp_path)).splitlines()[-1]
    assert line.endswith("(ValueError: no\\x1b[2J) seed=1")


def test_a_sweep_says_what_has_not_begun(tmp_path, capsys):
    make_sweep(tmp_path / "s", ["seed=0", "seed=1", "seed=2"], begun=1)
    assert "1 finished, 2 not begun" in listed(capsys, str(tmp_path))


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (["--state", "failed"], 1),
        (["--state", "failed,lost"], 2),
        (["--state", "running"], 0),
        (["--experiment", "cifar10/*"], 1),
        (["--experiment", "cifar10/cwx"], 1),
        (["--experiment", "cifar10/cwx small"], 1),
        (["--experiment", "cifar10"], 0),
        (["corruption=badnets"], 1),
        (["corruption=b*,none"], 2),
        (["corruption.rate=0.50"], 1),
        (["corruption.seed=3"], 1),
        (["list=[1,2]"], 1),
        (["flag=true", "none=null"], 1),
        (["seed=3"], 2),
        (["seed=0,3", "--state", "finished"], 3),
        (["seed=*", "data=digits"], 1),
        (["runs/sweep", "seed=1*"], 2),
        (["runs/sweep", "runs/cut"], 12),
    ],
)
def test_runs_are_kept_by_what_they_are(runs, capsys, argv, count):
    assert len(folders(capsys, *argv)) == count


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--state", "faild"], "there is no state 'faild': did you mean failed?"),
        (
            ["corruption.rat=1"],
            "no run has a setting corruption.rat: did you mean corruption.rate?",
        ),
        (["--metric", "fidelity/ration"], "did you mean fidelity/ratio?"),
        (["--sort", "fidelity/ratoi"], "did you mean fidelity/ratio?"),
        (["--sort", "tiem"], "did you mean time?"),
        (["runz"], "runz is not there: did you mean runs?"),
        (["runs/cut/status.json"], "is a file, not a folder"),
        (["--metrc", "x"], "there is no --metrc: did you mean --metric?"),
        (["--metric"], "expected one argument (see "),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_may_be(runs, argv, said):
    with pytest.raises(UserError) as refused:
        ls.main(argv)
    assert said in str(refused.value)


def test_numbers_are_shown_and_sorted_by(runs, capsys):
    text = listed(capsys, "--metric", "other", "--metric", "fid*")
    assert text.splitlines()[0].split()[5:7] == ["other", "fidelity"]
    ordered = folders(capsys, "--sort", "fidelity/ratio")
    assert ordered[:2] == ["runs/digits/quickstart/new", "runs/cifar10/cwx/old"]
    backwards = folders(capsys, "--sort", "fidelity/ratio", "--reverse")
    assert backwards[:2] == ordered[1::-1]
    # Those without it stay last.
    assert set(backwards[2:]) == set(ordered[2:])
    assert folders(capsys, "--sort", "time")[-1] == "runs/cifar10/cwx/old"


def test_json_has_everything(runs, capsys):
    run = json.loads(listed(capsys, "--json"))[0]
    assert run == {
        "folder": "runs/digits/quickstart/new", "experiment": "digits/quickstart",
        "started": "2026-11-21T12:00:00+00:00", "state": "finished", "reason": None,
        "seconds": 60.0, "sweep": None, "swept": [], "overrides": ["seed=3"], "commit": "abc",
        "metrics": {"fidelity/ratio": 0.25, "other": 1.0},
    }  # fmt: skip
    assert json.loads(listed(capsys, "--json", "--state", "running")) == []


def test_nothing_is_said_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "no runs in runs yet: start one with" in listed(capsys)
    make_run(tmp_path / "runs/x")
    assert "none of 1 runs is of that kind" in listed(capsys, "--state", "lost")


def test_a_reference_to_itself_ends(tmp_path):
    run = Run.read(make_run(tmp_path / "x", config={"a": "${a}", "b": "${.c}", "d": "${e.f}"}))
    assert setting(run, "a") == "${a}"
    assert setting(run, "b") == "${.c}"
    assert kept([run], ["a=1"], experiment=None, states=None) == []


@pytest.mark.parametrize("where", ["experiment", "override", "folder", "number", "state"])
def test_no_name_reaches_the_terminal_as_a_command(tmp_path, monkeypatch, capsys, where):
    monkeypatch.chdir(tmp_path)
    name = HOSTILE.replace("/", "_")
    make_run(
        Path("runs") / (name if where == "folder" else "x"),
        experiment=name if where == "experiment" else "e",
        overrides=[f"a={name}"] if where == "override" else [],
        metrics={name if where == "number" else "fidelity/ratio": 1.0},
        state=name if where == "state" else "finished",
    )
    text = listed(capsys, *(["--metric", "*"] if where == "number" else []))
    assert len(text.splitlines()) == (2 if where in ("number",) else 3)
    assert all(c.isprintable() for c in text.replace("\n", ""))
    if where not in ("state",):
        assert "\\x1b[2J" in text
    assert all(c.isprintable() for c in listed(capsys, "--json").replace("\n", ""))


@pytest.mark.parametrize("argv", [["ls", HOSTILE], [HOSTILE], ["ls", f"{HOSTILE}=1"],
                                  ["report", HOSTILE], ["experts", HOSTILE]])  # fmt: skip
def test_no_argument_is_told_back_as_a_command(runs, monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", ["cwx", *argv])
    with pytest.raises(SystemExit) as refused:
        app.main()
    assert str(refused.value.code).isprintable()


def test_a_terminal_of_few_letters_gets_the_others_escaped(tmp_path):
    make_run(tmp_path / "runs/x", experiment="größe/日本")
    code = "import sys; sys.argv[1:]=['ls']; from cwx.cli.app import main; main()"
    for encoding, shown in (("ascii", r"gr\xf6\xdfe/\u65e5\u672c"), ("utf-8", "größe/日本")):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert shown in done.stdout.decode(encoding)


def test_a_long_line_is_cut_in_a_terminal_alone(tmp_path):
    make_run(tmp_path / "runs/x", overrides=["a=" + "b" * 300])
    code = "import sys; sys.argv[1:]=['ls']; from cwx.cli.app import main; main()"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "COLUMNS": "100"}
    piped = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "b" * 300 in piped.stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=tmp_path, stdout=theirs, env=env) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:
            pass
        os.close(ours)
    assert process.returncode == 0
    lines = seen.decode().splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[-1].endswith("b…")


def test_who_stops_reading_stops_it_quietly(runs):
    code = "import sys; sys.argv[1:]=['ls', '--json']; from cwx.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lss"], "there is no command lss: did you mean ls?"),
        (["reprot", "x"], "did you mean report?"),
        (["help"], "there are experiments, experts, ls, report"),
        (["ls", "--stat", "x"], "there is no --stat: did you mean --state?"),
        (["ls", "nowhere"], "nowhere is not there: name a folder"),
        (["report"], "the following arguments are required: folder"),
        (["report", "nonfolder"], "nonfolder is not there"),
    ],
)
def test_the_entry_refuses_in_one_line(runs, monkeypatch, argv, said):
    monkeypatch.setattr(sys, "argv", ["cwx", *argv])
    with pytest.raises(SystemExit) as refused:
        app.main()
    message = refused.value.code
    assert message.startswith("cwx: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("command", app.COMMANDS)
def test_each_command_helps_with_examples(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cwx", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: cwx {command}" in text
    assert text.partition("examples:")[2].count(f"cwx {command}") >= 3
    assert max(map(len, text.splitlines())) < 105


def test_a_page_of_one_run_is_its_own(runs, capsys):
    report.main(["runs/digits/quickstart/new"])
    assert capsys.readouterr().out == "the page is runs/digits/quickstart/new/report.html\n"
    assert Path("runs/digits/quickstart/new/report.html").stat().st_size > 0


@pytest.mark.parametrize(
    ("argv", "given", "out"),
    [
        (["runs/sweep"], ["runs/sweep"], None),
        (["runs/sweep", "runs/cut"], ["runs/sweep", "runs/cut"], None),
        (["runs/cut", "--out", "x.html"], ["runs/cut"], "x.html"),
        (["runs/cut", "runs/sweep", "--out", "x.html"], ["runs/cut", "runs/sweep"], "x.html"),
        (["--out", "x.html", "runs"], ["runs"], "x.html"),
    ],
)
def test_a_page_of_several_is_asked_for(runs, monkeypatch, capsys, argv, given, out):
    from cwx.report import sweep_page

    asked = []
    monkeypatch.setattr(
        sweep_page, "write_report", lambda *what: asked.append(what) or Path("there.html")
    )
    report.main(argv)
    assert asked == [([Path(one) for one in given], None if out is None else Path(out))]
    assert capsys.readouterr().out == "the page is there.html\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["empty"], "empty holds no run"),
        (["runs/cut", "--out", "empty"], "--out empty is a folder"),
        (["runs/ctu"], "did you mean runs/cut?"),
    ],
)
def test_a_page_that_cannot_be_is_refused(runs, argv, said):
    Path("empty").mkdir()
    with pytest.raises(UserError) as refused:
        report.main(argv)
    assert said in str(refused.value)


def test_a_table_stands_in_columns():
    rows = [["a", 1, 0.123456, None], ["日本", 20, None, "x"]]
    assert table(["n", "of/it", "value", "last"], rows, shrink=3).splitlines() == [
        "n     of   value  last",
        "      it",
        "a      1  0.1235",
        "日本  20          x",
    ]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (61, "run       1.5       2.5  a setting that is rather long for it"),
        (50, "run       1.5       2.5  a setting that is rather…"),
        (40, "run       1.5  a setting that is rather…"),
        (30, "run  a setting that is rather…"),
        (10, "run  a setting that is r…"),
    ],
)
def test_a_table_fits_into_a_terminal(monkeypatch, columns, line):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    header = ["run", "measured", "measured", "settings"]
    rows = [["run", 1.5, 2.5, "a setting that is rather long for it"]]
    assert table(header, rows, shrink=3, spare=[2, 1]).splitlines()[1] == line


def test_what_does_not_print_is_escaped():
    assert plain(HOSTILE).isprintable()
    assert plain("größe 日本 é") == "größe 日本 é"
    assert plain("\udcff") == "\\udcff"


def test_sizes_are_said_in_short():
    assert [size(n) for n in (0, 1000, 14_156_000, 3e13)] == ["0 B", "1 kB", "14.2 MB", "30 TB"]


def test_a_running_study_is_no_lost_one(runs, capsys):
    with writing(Path("runs/cut")):
        assert folders(capsys, "--state", "running") == ["runs/cut"]
    assert folders(capsys, "--state", "lost") == ["runs/cut"]
