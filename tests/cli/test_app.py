"""The real entry as a user calls it, on real digits, shrunk by overrides."""

import json
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from support.entry import (
    DISTILL,
    EXPERTS,
    FINE_TUNED,
    MEASURED,
    PATTERNS,
    QUICKSTART,
    SMALL,
    run,
    start,
)

from cwx.storage.locks import is_written
from cwx.storage.sweeps import read_jobs


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A folder in which the small study has run once, with every logger."""
    folder = tmp_path_factory.mktemp("work")
    study = [*SMALL, *PATTERNS, *MEASURED, QUICKSTART, *FINE_TUNED]
    code, output = run(folder, *study, "hydra.run.dir=one")
    assert code == 0, output
    return folder


def test_the_quickstart_leaves_what_it_promises(quickstart):
    folder = quickstart / "one"
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("ratio", "matched", "reference"):
        assert metrics[f"fidelity/{name}"] > 0
    for source in ("distill", "distill-projected", "activation", "activation-projected", "real"):
        for network in ("expert", "held-out", "mlp"):
            assert 0 <= metrics[f"discriminative/{source}/{network}"] <= 1
    tensors = load_file(folder / "explanations.safetensors")
    assert tensors["distill/images"].shape == tensors["activation/images"].shape == (30, 1, 8, 8)
    for name in (
        "report.html",
        "figures/gallery.png",
        "tables/fidelity.csv",
        "logs/version_0/metrics.csv",
        ".hydra/config.yaml",
        "cwx.log",
    ):
        assert (folder / name).stat().st_size > 0
    assert not list((folder / "checkpoints").iterdir())


def test_weights_and_biases_has_the_run_offline(quickstart):
    folder = quickstart / "one"
    (offline,) = (folder / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(offline)]
    read = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    records = [json.loads(line) for line in read.splitlines()]
    of = {name: [r[name] for r in records if r["type"] == name] for r in records for name in r}
    assert of["run"][0]["tags"] == ["digits/quickstart", "paper"]
    assert of["config"][0]["update"]["method"]["distill"]["iterations"] == 6
    curves = {name for row in of["history"] for name in row["item"]}
    assert {"expert-0/loss", "expert-0/accuracy", "distill/loss"} <= curves
    grids = [r["item"] for r in of["history"] if "distill/images._type" in r["item"]]
    assert [row["trainer/global_step"] for row in grids] == [2, 4, 6]
    assert {"tables/fidelity._type", "figures/gallery._type"} <= curves
    summary = {k: v for r in of["summary"] for k, v in r.get("update", {}).items()}
    metrics = json.loads((folder / "metrics.json").read_text())
    # Infinite power, of classes that are never recognised, is null in one and a word in the other.
    finite = {name: number for name, number in metrics.items() if number is not None}
    assert {name: summary[name] for name in finite} == finite
    (kept,) = [a for a in of["artifact"] if a["type"] == "explanations"]
    paths = {part["path"] for part in kept["manifest"]["contents"]}
    assert {"explanations.safetensors", "metrics.json"} <= paths
    assert of["exit"][0].get("exit_code", 0) == 0


def test_the_store_knows_the_runs_that_took_what_it_has(quickstart):
    for path in (quickstart / "store").iterdir():
        use = json.loads((path / "uses.json").read_text())[str((quickstart / "one").resolve())]
        assert (use["experiment"], use["data"]) == ("digits/quickstart", "digits")


def test_two_processes_find_and_measure_what_one_does(quickstart):
    code, output = run(
        quickstart, *SMALL, *PATTERNS, *MEASURED, "evaluation=[attention,predictive_power]",
        "trainer=ddp_cpu", "logger=[]", "hydra.run.dir=two",
    )  # fmt: skip
    assert code == 0, output
    folders = quickstart / "one", quickstart / "two"
    one, two = (load_file(folder / "explanations.safetensors") for folder in folders)
    assert one["universal/deltas"].shape == (30, 1, 8, 8)
    assert one["gradcam/masks"].shape == (20, 8, 8)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-5)
    for name in ("tables/attention.csv", "tables/predictive_power_canvases.csv"):
        alone, divided = ((folder / name).read_bytes() for folder in folders)
        assert alone == divided
    metrics, divided = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    assert divided
    assert {name: metrics[name] for name in divided} == divided


@pytest.mark.slow
def test_two_processes_train_the_experts_of_one(quickstart):
    """By default, `test_batch_norm` trains with two processes."""
    code, output = run(
        quickstart, *EXPERTS, *FINE_TUNED, "trainer=ddp_cpu", "logger=[]", "evaluation=[]",
        "method=[]", "store=other", "hydra.run.dir=three",
    )  # fmt: skip
    assert code == 0, output
    assert "training (not in the store): fine-tuned-0" in output
    folders = sorted(
        path.name
        for path in (quickstart / "store").iterdir()
        # No evaluation needs replicas here.
        if "replica_of" not in json.loads((path / "identity.json").read_text())
    )
    assert sorted(path.name for path in (quickstart / "other").iterdir()) == folders
    for folder in folders:
        for state in sorted((quickstart / "store" / folder).glob("state-*")):
            alone, divided = load_file(state), load_file(quickstart / "other" / folder / state.name)
            for name in alone:
                torch.testing.assert_close(divided[name], alone[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_purify_also_when_nothing_else_is_left_to_do(tmp_path):
    """A resumed run may come to the purification before any training has joined its processes."""
    code, output = run(
        tmp_path, *EXPERTS, *DISTILL, "trainer=ddp_cpu", "logger=[]", "method=[distill]",
        "corruption=badnets", "corruption.target=3", "purification=revealed", "data.total=null",
        "evaluation=[attack_success]", "store=filtered", "hydra.run.dir=pure",
    )  # fmt: skip
    assert code == 0, output
    assert "training (not in the store): purified-0" in output
    is_corrupted, suspected = (
        load_file(tmp_path / "pure" / f"{file}.safetensors")[name]
        for file, name in (("corrupted", "is_corrupted"), ("suspected", "suspected"))
    )
    assert (is_corrupted & suspected).sum() > 0.9 * max(is_corrupted.sum(), suspected.sum())
    metrics = tmp_path / "pure" / "metrics.json"
    before = metrics.read_bytes()
    newest = max((tmp_path / "filtered").iterdir(), key=lambda path: path.stat().st_mtime)
    shutil.rmtree(newest)
    metrics.unlink()
    code, output = run(tmp_path, "resume=pure")
    assert code == 0, output
    assert "training (not in the store): purified-0" in output
    assert metrics.read_bytes() == before


LONGER = [*SMALL, "logger=[csv]", "method.distill.iterations=60", "evaluation=[fidelity]"]


@pytest.fixture(scope="module")
def uninterrupted(quickstart):
    """A longer distillation, of experts that the store has."""
    code, output = run(quickstart, *LONGER, "hydra.run.dir=whole")
    assert code == 0, output
    return quickstart / "whole"


def same(run, other):
    names = ("explanations.safetensors", "metrics.json")
    return all((run / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_killed_run_continues_to_the_same_result(uninterrupted):
    folder = uninterrupted.parent
    process = start(folder, *LONGER, "hydra.run.dir=cut")
    deadline = time.monotonic() + 120
    while not (folder / "cut/checkpoints/distill.ckpt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    assert json.loads((folder / "cut/status.json").read_text())["state"] == "running"
    assert not (folder / "cut/explanations.safetensors").exists()
    checkpoint = torch.load(folder / "cut/checkpoints/distill.ckpt", weights_only=True)
    code, output = run(folder, "resume=cut")
    assert code == 0, output
    assert same(folder / "cut", uninterrupted)
    # The time before the kill counts as well.
    seconds = json.loads((folder / "cut/method_seconds.json").read_text())
    before = checkpoint["callbacks"]["ElapsedTime"]["seconds"]
    assert before > 0
    assert seconds["distill"] > round(before, 1)


@pytest.mark.slow
def test_a_sweep_that_is_killed_continues_and_trains_its_expert_once(tmp_path):
    # Neither job ends before the other has a checkpoint.
    longest = [*LONGER, "method.distill.iterations=150"]
    code, output = run(tmp_path, *longest, "hydra.run.dir=whole")
    assert code == 0, output
    uninterrupted = tmp_path / "whole"
    sweep = ["-m", *longest, "seed=0,1", "store=shared", "hydra.launcher.n_jobs=2"]
    process = start(tmp_path, *sweep)
    place = tmp_path / "runs" / "digits" / "quickstart"
    deadline = time.monotonic() + 240
    while len([*place.glob("*/*/checkpoints/distill.ckpt")]) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    (folder,) = place.iterdir()
    # Its jobs end with it, though nobody tells them to.
    while any(is_written(folder / job) for job in "01"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert {job.state for job in read_jobs(folder)} == {"interrupted"}
    code, output = run(tmp_path, *sweep, "resume=true")
    assert code == 0, output
    assert {job.state for job in read_jobs(folder)} == {"finished"}
    assert (folder / "report.html").exists()
    outputs = [(folder / job / "output.log").read_text() for job in "01"]
    place = folder.relative_to(tmp_path)
    assert [f"resume={place / str(job)}" in said for job, said in enumerate(outputs)] == [
        True,
        True,
    ]
    said = "".join(outputs)
    assert said.count("training (not in the store): expert-0") == 1
    assert said.count("explanations exist from an earlier start") == 0
    assert same(folder / "0", uninterrupted)
    assert not same(folder / "1", uninterrupted)


def test_a_diverging_run_says_what_to_lower_and_keeps_the_last_good_images(quickstart):
    settings = [*EXPERTS, *DISTILL, "method=[distill]", "method.distill.inner.learning_rate=1e9"]
    code, output = run(quickstart, *settings, "logger=[]", "hydra.run.dir=wild")
    assert code == 1
    assert "cwx: distill diverged at step" in output
    assert "Traceback" not in output
    status = json.loads((quickstart / "wild" / "status.json").read_text())
    assert status["state"] == "failed"
    kept = load_file(quickstart / "wild" / "last-good-distill.safetensors")
    assert kept["distill/images"].isfinite().all()
    assert "Traceback" in (quickstart / "wild" / "cwx.log").read_text()
