"""The command that measures a GPU: time limits, failures, files; and all of it at toy sizes."""

import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.builders import expert_requests, experts, image_data, trainer
from support.paths import ROOT

from cwx.storage.trajectories import TrajectoryStore
from cwx.training.precision import Precision, Precisions
from cwx.training.stages import Stages

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of `benchmarks/`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def gpu(benchmark):
    return benchmark("gpu")


@pytest.fixture
def reserve(benchmark):
    return benchmark("timed_parts").RESERVE


WRITE = (
    "import json, pathlib, sys; "
    "pathlib.Path(sys.argv[1]).write_text(json.dumps({'row': {'MiB': 7.0}}))"
)
# Starts a child that would write a file later, and waits for it.
CHILD = (
    f"{WRITE}; import subprocess; subprocess.run([sys.executable, '-c', "
    "'import time, pathlib, sys; time.sleep(1.5); pathlib.Path(sys.argv[1]).touch()', sys.argv[2]])"
)


def part(gpu, name, code, *arguments, seconds=20.0, read=None):
    command = [sys.executable, "-c", code, "{json}", *map(str, arguments)]
    return gpu.Part(name=name, seconds=seconds, command=command, read=read or gpu.rows_of_json)


def run(gpu, folder, *parts, **settings):
    results, saved = {"sizes": "toy"}, []

    def save(results):
        gpu.save(results, folder / "out")
        saved.append(json.loads((folder / "out.json").read_text()))

    gpu.run_parts(parts, results, folder, os.environ, save, **settings)
    return results["parts"], saved


def test_a_part_that_fails_leaves_its_values_and_the_others_run(gpu, tmp_path):
    failing = part(gpu, "first", f"{WRITE}; print('why'); sys.exit(3)")
    parts, saved = run(gpu, tmp_path, failing, part(gpu, "second", WRITE))
    assert parts["first"]["state"] == "failed with exit status 3"
    assert parts["first"]["output"] == ["why"]
    assert parts["first"]["rows"] == parts["second"]["rows"] == {"row": {"MiB": 7.0}}
    assert parts["second"]["state"] == "finished"
    assert [gpu.has_failed(result) for result in parts.values()] == [True, False]
    # Saved before each part and after the last.
    states = [[p["state"] for p in results["parts"].values()] for results in saved]
    assert states == [
        ["not run", "not run"],
        ["failed with exit status 3", "not run"],
        ["failed with exit status 3", "finished"],
    ]
    assert not [*tmp_path.glob(".out*")]


def test_a_part_that_takes_too_long_is_killed_with_its_children(gpu, reserve, tmp_path):
    file = tmp_path / "written by the child"
    start = time.monotonic()
    parts, _ = run(gpu, tmp_path, part(gpu, "slow", CHILD, file, seconds=0.7), total=reserve + 0.7)
    assert time.monotonic() - start < 1.5
    assert parts["slow"]["state"] == "timed out after 1 s"
    assert parts["slow"]["rows"] == {"row": {"MiB": 7.0}}
    time.sleep(1.5)
    assert not file.exists()


def test_nothing_follows_a_required_part_that_fails(gpu, tmp_path, capfd):
    failing = replace(part(gpu, "machine", "import sys; sys.exit('no GPU')"), required=True)
    parts, saved = run(gpu, tmp_path, failing, part(gpu, "second", WRITE))
    assert parts["machine"]["state"] == "failed with exit status 1"
    assert parts["second"] == {"state": "not run"}
    assert all(map(gpu.has_failed, parts.values()))
    assert saved[-1]["parts"] == parts
    assert "no GPU" in capfd.readouterr().err


def test_no_part_starts_when_the_whole_time_is_over(gpu, reserve, tmp_path):
    parts, _ = run(gpu, tmp_path, part(gpu, "late", WRITE), total=reserve)
    assert parts == {"late": {"state": "not run: no time was left"}}


def test_a_part_receives_the_time_that_others_left(gpu, reserve, tmp_path):
    show = "import sys, time; print(float(sys.argv[2]) - time.monotonic()); sys.exit(1)"
    parts, _ = run(
        gpu,
        tmp_path,
        part(gpu, "short", WRITE, seconds=30.0),
        part(gpu, "long", show, "{until}", seconds=10.0),
        total=reserve + 40.0,
    )
    assert 30 < float(parts["long"]["output"][0]) <= 40


def test_a_command_that_does_not_exist_is_a_failed_part(gpu, tmp_path):
    missing = gpu.Part(
        name="a", seconds=5.0, command=[str(tmp_path / "none")], read=gpu.rows_of_json
    )
    parts, _ = run(gpu, tmp_path, missing, part(gpu, "b", WRITE))
    assert parts["a"]["state"].startswith("failed to start")
    assert gpu.has_failed(parts["a"])
    assert parts["b"]["state"] == "finished"


def test_the_table_has_every_value(gpu):
    rows = {"step": {"seconds": 0.25, "MiB": 12.0, "error": 0.5}, "other": "failed: no memory"}
    results = {
        "sizes": "full",
        "parts": {"one": {"state": "finished", "seconds": 3.0, "rows": rows}},
    }
    head, _, *lines = gpu.markdown(results).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line]
    assert head == "sizes: full"
    assert cells[2:] == [
        ["one", "finished", "3", "", ""],
        ["", "step", "0.25", "12", "error 0.5"],
        ["", "other", "", "", "failed: no memory"],
    ]
    assert gpu.has_failed(results["parts"]["one"])


def test_pytest_results_are_counted_also_when_it_was_killed(gpu, tmp_path):
    file = tmp_path / "tests.json"
    file.with_suffix(".log").write_text(
        "tests/test_gpu.py::test_a[x y] PASSED [ 10%]\n"
        "tests/test_gpu.py::test_b FAILED [ 20%]\n"
        "tests/test_gpu.py::test_c "
    )
    assert gpu.rows_of_pytest(file) == {
        "tests": {"passed": 1, "failed": 1},
        "tests/test_gpu.py::test_b": "failed",
    }


def test_the_limits_sum_to_at_most_eight_minutes(gpu, reserve):
    for arguments in ([], ["--toy", "--device", "cpu"]):
        parts = gpu.parts(gpu.arguments(arguments), Path("work"))
        assert sum(part.seconds for part in parts) + reserve <= 480


def test_the_parts_name_variants_that_a_gpu_has(gpu, benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    full = benchmark("harness").arguments("", toy=True).parse_args(["--full"])
    available = {
        "distill_step": benchmark("distill_step").variants(),
        "mask_search": benchmark("mask_search").variants(full),
        "consistency_step": benchmark("consistency_step").variants(full),
    }
    parts = {part.name: part for part in gpu.parts(gpu.arguments([]), Path("work"))}
    for name, variants in available.items():
        command = parts[name].command
        chosen = command[command.index("--only") + 1 :]
        assert len(chosen) > 3
        assert set(chosen) <= set(variants)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "has no folder cifar-10-batches-py"),
        (["--only", "nothing"], "choose some of machine, tests, experts"),
    ],
)
def test_invalid_arguments_are_refused(gpu, arguments, message, capsys):
    with pytest.raises(SystemExit):
        gpu.arguments(arguments)
    assert message in capsys.readouterr().err


def test_training_that_would_not_end_in_time_is_shorter_and_complete(benchmark, tmp_path):
    gpu_parts = benchmark("gpu_parts")
    report = gpu_parts.Report(tmp_path / "experts.json")
    clock = gpu_parts.EpochClock(report, "epoch", end=time.monotonic())
    store = TrajectoryStore(tmp_path / "store")
    requests = expert_requests(0)

    def fit(callbacks, **given):
        return trainer(callbacks=[*callbacks, clock], **given)

    single = Precision(trainer="32-true", float32_matmul="highest")
    (trajectory,) = Stages(fit, Precisions(experts=single, methods=single)).train(
        lambda _: experts(image_data(), [0], epochs=50), requests, store, at_once=1
    )
    assert trajectory.recorded_epochs == (0, 1, 2)
    assert json.loads(report.file.read_text())["epoch"]["epochs"] == 2


@pytest.mark.slow
def test_every_part_runs_at_toy_sizes_without_a_gpu(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--toy", "--device", "cpu", "--out"]
    subprocess.run([*command, str(tmp_path / "toy")], check=True, timeout=480)
    results = json.loads((tmp_path / "toy.json").read_text())
    assert results["sizes"] == "toy"
    parts = results["parts"]
    assert {part["state"] for part in parts.values()} == {"finished"}
    assert parts["tests"]["rows"]["tests"]["collected"] > 0
    assert parts["machine"]["rows"]["provenance"]["torch"] == str(torch.__version__)
    for name in ("experts", "outer_steps", "mask_search", "consistency_step", "distill_step"):
        (values,) = parts[name]["rows"].values()
        assert values["seconds"] > 0
    (experts,), (steps,) = (parts[name]["rows"].values() for name in ("experts", "outer_steps"))
    assert experts["epochs"] == 2
    assert steps["steps"] == 5
    assert (tmp_path / "toy.md").read_text().count("\n") > 15
