"""`cwx ls`, `cwx report` and errors of the command line, on folders of artificial runs."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_folders import make_run, make_sweep, write

from cwx.cli import app
from cwx.cli.commands import ls, report
from cwx.cli.commands.run_filters import select_runs, setting
from cwx.cli.tables import table
from cwx.errors import UserError, printable
from cwx.storage.locks import writing
from cwx.storage.quantities import size
from cwx.storage.runs import Run

# Control sequences: clear the screen, change the title, hide text, reverse the line.
HOSTILE = "\x1b[2J\x1b]0;owned\x07 a\nb\r\x08\x9b31m \u202etxt.exe [red]"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A working folder with runs of three kinds and a sweep."""
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
    listed_folders = folders(capsys)
    jobs = [f"runs/sweep/{n}" for n in range(11)]
    assert listed_folders == [
        "runs/digits/quickstart/new",
        *jobs,
        "runs/cut",
        "runs/cifar10/cwx/old",
    ]
    assert folders(capsys, "--reverse") == [
        "runs/cifar10/cwx/old", "runs/cut", *jobs[::-1], "runs/digits/quickstart/new",
    ]  # fmt: skip


def test_a_line_has_the_time_state_settings_and_metrics_of_a_run(runs, capsys):
    lines = listed(capsys).splitlines()
    assert lines[0].split() == ["run", "experiment", "started", "state", "time", "fidelity",
                                "settings"]  # fmt: skip
    assert lines[1].split() == ["ratio"]
    new = next(line for line in lines if "quickstart/new" in line)
    assert "digits/quickstart" in new
    assert "2026-11-21" in new
    assert " 1 min 0 s " in new
    for word in ("finished", "0.25", "seed=3"):
        assert word in new.split()
    (sweep,) = (line for line in lines if line.startswith("runs/sweep"))
    assert sweep.split()[1:] == ["11", "finished"]
    job = lines[lines.index(sweep) + 2]
    assert job.startswith("  1 ")
    assert job.endswith("seed=1")
    assert "scale=small" not in job


def test_a_failed_run_has_its_reason(tmp_path, capsys):
    make_run(tmp_path / "x", state="failed", reason="ValueError: no\x1b[2J", overrides=["seed=1"])
    line = listed(capsys, str(tmp_path)).splitlines()[-1]
    assert line.endswith("(ValueError: no\\x1b[2J) seed=1")


def test_a_sweep_counts_jobs_that_have_not_started(tmp_path, capsys):
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
def test_runs_are_selected_by_state_experiment_and_settings(runs, capsys, argv, count):
    assert len(folders(capsys, *argv)) == count


NUMBERS, WORDS = ("1", "2", "3", "007"), ("cat", "dog")


@pytest.mark.parametrize(
    ("target", "classes", "matching", "others"),
    [
        (2, NUMBERS, ["2", "1,2"], ["1", "3", "02"]),
        ("2", NUMBERS, ["2"], ["1", "3"]),
        ("007", NUMBERS, ["007", "00*"], ["7", "7.0", "3"]),
        (1, WORDS, ["1", "dog", "d*"], ["cat", "0"]),
        ("dog", WORDS, ["1", "dog"], ["cat", "0"]),
        ("1e3", ("1e3", "1000"), ["1e3"], ["1000", "0"]),
        (None, ("null", "x"), ["null"], ["x"]),
        ("nan", ("nan", "x"), ["nan"], ["x"]),
        # The run stopped before its classes were known.
        (1, None, ["1"], ["dog"]),
    ],
)
def test_runs_are_selected_by_the_class_that_a_setting_means(
    tmp_path, capsys, target, classes, matching, others
):
    run = make_run(tmp_path / "run", config={"corruption": {"target": target}})
    if classes:
        rows = "".join(f"{index},{name}\n" for index, name in enumerate(classes))
        write(run / "tables/classes.csv", f"index,class\n{rows}")
    counts = [
        len(folders(capsys, str(tmp_path), f"corruption.target={text}"))
        for text in [*matching, *others]
    ]
    assert counts == [1] * len(matching) + [0] * len(others)


@pytest.mark.parametrize(
    ("argv", "message"),
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
def test_an_unknown_name_is_refused_with_the_nearest(runs, argv, message):
    with pytest.raises(UserError) as refused:
        ls.main(argv)
    assert message in str(refused.value)


def test_metrics_are_shown_and_sort_runs(runs, capsys):
    text = listed(capsys, "--metric", "other", "--metric", "fid*")
    assert text.splitlines()[0].split()[5:7] == ["other", "fidelity"]
    ordered = folders(capsys, "--sort", "fidelity/ratio")
    assert ordered[:2] == ["runs/digits/quickstart/new", "runs/cifar10/cwx/old"]
    backwards = folders(capsys, "--sort", "fidelity/ratio", "--reverse")
    assert backwards[:2] == ordered[1::-1]
    # Runs without the metric stay last.
    assert set(backwards[2:]) == set(ordered[2:])
    assert folders(capsys, "--sort", "time")[-1] == "runs/cifar10/cwx/old"


def test_json_has_all_fields(runs, capsys):
    run = json.loads(listed(capsys, "--json"))[0]
    assert run == {
        "folder": "runs/digits/quickstart/new", "experiment": "digits/quickstart",
        "started": "2026-11-21T12:00:00+00:00", "state": "finished", "reason": None,
        "damage": [], "seconds": 60.0, "sweep": None, "swept": [], "overrides": ["seed=3"],
        "commit": "abc",
        "metrics": {"fidelity/ratio": 0.25, "other": 1.0},
    }  # fmt: skip
    assert json.loads(listed(capsys, "--json", "--state", "running")) == []


def test_an_empty_list_has_a_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "no runs in runs yet: start one with" in listed(capsys)
    make_run(tmp_path / "runs/x")
    assert "none of 1 runs matches" in listed(capsys, "--state", "lost")


def test_a_circular_reference_is_not_followed(tmp_path):
    run = Run.read(make_run(tmp_path / "x", config={"a": "${a}", "b": "${.c}", "d": "${e.f}"}))
    assert setting(run, "a") == "${a}"
    assert setting(run, "b") == "${.c}"
    assert select_runs([run], ["a=1"], experiment=None, states=None) == []


@pytest.mark.parametrize("where", ["experiment", "override", "folder", "number", "state"])
def test_control_characters_in_names_are_escaped(tmp_path, monkeypatch, capsys, where):
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
def test_control_characters_in_arguments_are_escaped(runs, monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", ["cwx", *argv])
    with pytest.raises(SystemExit) as refused:
        app.main()
    assert str(refused.value.code).isprintable()


def test_characters_that_a_terminal_lacks_are_escaped(tmp_path):
    make_run(tmp_path / "runs/x", experiment="größe/日本")
    code = "import sys; sys.argv[1:]=['ls']; from cwx.cli.app import main; main()"
    for encoding, text in (("ascii", r"gr\xf6\xdfe/\u65e5\u672c"), ("utf-8", "größe/日本")):
        process = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert text in process.stdout.decode(encoding)


def test_a_long_line_is_cut_in_a_terminal_only(tmp_path):
    make_run(tmp_path / "runs/x", overrides=["a=" + "b" * 300])
    code = "import sys; sys.argv[1:]=['ls']; from cwx.cli.app import main; main()"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "COLUMNS": "100"}
    piped = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "b" * 300 in piped.stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=tmp_path, stdout=theirs, env=env) as process:
        os.close(theirs)
        output = b""
        try:
            while part := os.read(ours, 4096):
                output += part
        except OSError:
            pass
        os.close(ours)
    assert process.returncode == 0
    lines = output.decode().splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[-1].endswith("b…")


def test_a_closed_pipe_ends_the_command_without_an_error(runs):
    code = "import sys; sys.argv[1:]=['ls', '--json']; from cwx.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["lss"], "there is no command lss: did you mean ls?"),
        (["reprot", "x"], "did you mean report?"),
        (["help"], "there are agreement, experiments, experts, inspect, ls, report"),
        (["ls", "--stat", "x"], "there is no --stat: did you mean --state?"),
        (["ls", "nowhere"], "nowhere is not there: name a folder"),
        (["report"], "the following arguments are required: folder"),
        (["report", "nonfolder"], "nonfolder is not there"),
    ],
)
def test_an_invalid_command_is_refused_in_one_line(runs, monkeypatch, argv, expected):
    monkeypatch.setattr(sys, "argv", ["cwx", *argv])
    with pytest.raises(SystemExit) as refused:
        app.main()
    message = refused.value.code
    assert message.startswith("cwx: ")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize("command", app.COMMANDS)
def test_the_help_of_each_command_has_examples(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cwx", command, "--help"])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: cwx {command}" in text
    assert text.partition("examples:")[2].count(f"cwx {command}") >= 3
    assert max(map(len, text.splitlines())) < 105


def test_the_page_of_a_run_is_in_its_folder(runs, capsys):
    report.main(["runs/digits/quickstart/new"])
    assert capsys.readouterr().out == "the page is runs/digits/quickstart/new/report.html\n"
    assert Path("runs/digits/quickstart/new/report.html").stat().st_size > 0


@pytest.mark.parametrize(
    ("argv", "folders", "out"),
    [
        (["runs/sweep"], ["runs/sweep"], None),
        (["runs/sweep", "runs/cut"], ["runs/sweep", "runs/cut"], None),
        (["runs/cut", "--out", "x.html"], ["runs/cut"], "x.html"),
        (["runs/cut", "runs/sweep", "--out", "x.html"], ["runs/cut", "runs/sweep"], "x.html"),
        (["--out", "x.html", "runs"], ["runs"], "x.html"),
    ],
)
def test_a_page_is_written_of_all_folders(runs, monkeypatch, capsys, argv, folders, out):
    from cwx.report import sweep_page

    calls = []
    monkeypatch.setattr(
        sweep_page, "write_report", lambda *args: calls.append(args) or Path("there.html")
    )
    report.main(argv)
    assert calls == [([Path(folder) for folder in folders], None if out is None else Path(out))]
    assert capsys.readouterr().out == "the page is there.html\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["empty"], "empty holds no run"),
        (["runs/cut", "--out", "empty"], "--out empty is a folder"),
        (["runs/ctu"], "did you mean runs/cut?"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused(runs, argv, message):
    Path("empty").mkdir()
    with pytest.raises(UserError) as refused:
        report.main(argv)
    assert message in str(refused.value)


def test_a_table_has_aligned_columns():
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


def test_unprintable_characters_are_escaped():
    assert printable(HOSTILE).isprintable()
    assert printable("größe 日本 é") == "größe 日本 é"
    assert printable("\udcff") == "\\udcff"


def test_sizes_have_a_unit():
    assert [size(n) for n in (0, 1000, 14_156_000, 3e13)] == ["0 B", "1 kB", "14.2 MB", "30 TB"]


def test_a_running_study_is_not_lost(runs, capsys):
    with writing(Path("runs/cut")):
        assert folders(capsys, "--state", "running") == ["runs/cut"]
    assert folders(capsys, "--state", "lost") == ["runs/cut"]
