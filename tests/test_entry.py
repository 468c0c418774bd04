"""The real entry as a user calls it, on real digits, shrunk by overrides."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cwx.status import is_written
from cwx.sweeps.sweep import read_jobs

RUN = str(Path(__file__).parents[1] / "run.py")
SMALL = [
    "network.width=4",
    "procedure.epochs=3",
    "experts.seeds=[0]",
    "method.distill.start_max=1",
    "method.distill.inner.steps=3",
    "method.distill.iterations=6",
    "method.distill.checkpoint_every=2",
    "method.activation.iterations=4",
]


# Each expert goes on against an attack, at a rate that falls with its loss.
REFINED = [
    "refinement=consistency",
    "refinement.procedure.epochs=3",
    "refinement.procedure.attack.steps=2",
    "refinement.procedure.schedule={_target_:torch.optim.lr_scheduler.ReduceLROnPlateau,"
    "_partial_:true,patience:0,threshold:0.9}",
    "refinement.procedure.recording.epochs=null",
]


def start(folder, *overrides):
    # One thread a process: with two, one process sums in another order than each of two ranks.
    settings = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    return subprocess.Popen(
        [sys.executable, RUN, *overrides],
        cwd=folder,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder, *overrides):
    process = start(folder, *overrides)
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A folder in which the small study has run once, with every logger."""
    folder = tmp_path_factory.mktemp("work")
    code, output = run(folder, *SMALL, *REFINED, "hydra.run.dir=one")
    assert code == 0, output
    return folder


def test_the_quickstart_leaves_what_it_promises(quickstart):
    folder = quickstart / "one"
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    numbers = json.loads((folder / "metrics.json").read_text())
    for name in ("ratio", "matched", "reference"):
        assert numbers[f"fidelity/{name}"] > 0
    for source in ("distill", "distill-projected", "activation", "activation-projected", "real"):
        for judge in ("expert", "held-out", "mlp"):
            assert 0 <= numbers[f"discriminative/{source}/{judge}"] <= 1
    tensors = load_file(folder / "explanations.safetensors")
    assert tensors["distill/images"].shape == tensors["activation/images"].shape == (30, 1, 8, 8)
    for name in (
        "report.html",
        "figures/explanations.png",
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
    assert {"tables/fidelity._type", "figures/explanations._type"} <= curves
    summary = {k: v for r in of["summary"] for k, v in r.get("update", {}).items()}
    numbers = json.loads((folder / "metrics.json").read_text())
    assert {name: summary[name] for name in numbers} == numbers
    (kept,) = [a for a in of["artifact"] if a["type"] == "explanations"]
    paths = {part["path"] for part in kept["manifest"]["contents"]}
    assert {"explanations.safetensors", "metrics.json"} <= paths
    assert of["exit"][0].get("exit_code", 0) == 0


def test_the_store_knows_the_runs_that_took_what_it_has(quickstart):
    for path in (quickstart / "store").iterdir():
        use = json.loads((path / "uses.json").read_text())[str((quickstart / "one").resolve())]
        assert (use["experiment"], use["data"]) == ("digits/quickstart", "digits")


def test_two_processes_give_the_images_of_one(quickstart):
    code, output = run(
        quickstart, *SMALL, "trainer=ddp_cpu", "logger=[]", "evaluation=[]", "hydra.run.dir=two"
    )
    assert code == 0, output
    one, two = (
        load_file(quickstart / name / "explanations.safetensors") for name in ("one", "two")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-5)


def test_two_processes_train_the_experts_of_one(quickstart):
    code, output = run(
        quickstart, *SMALL, *REFINED, "trainer=ddp_cpu", "logger=[]", "evaluation=[]",
        "method=[]", "store=other", "hydra.run.dir=three",
    )  # fmt: skip
    assert code == 0, output
    assert "training what is not in the store: refined-0" in output
    folders = sorted(path.name for path in (quickstart / "store").iterdir())
    assert sorted(path.name for path in (quickstart / "other").iterdir()) == folders
    for folder in folders:
        for state in sorted((quickstart / "store" / folder).glob("state-*")):
            alone, divided = load_file(state), load_file(quickstart / "other" / folder / state.name)
            for name in alone:
                torch.testing.assert_close(divided[name], alone[name], rtol=1e-4, atol=1e-5)


def test_two_processes_purify_also_when_nothing_else_is_left_to_do(quickstart):
    """A resumed run may come to the purification before any training has joined its processes."""
    code, output = run(
        quickstart, *SMALL, "trainer=ddp_cpu", "logger=[]", "method=[distill]",
        "corruption=badnets", "corruption.target=3", "purification=revealed",
        "evaluation=[attack_success]", "store=filtered", "hydra.run.dir=pure",
    )  # fmt: skip
    assert code == 0, output
    assert "training what is not in the store: purified-0" in output
    touched, suspected = (
        load_file(quickstart / "pure" / f"{name}.safetensors")[name]
        for name in ("touched", "suspected")
    )
    assert (touched & suspected).sum() > 0.9 * max(touched.sum(), suspected.sum())
    metrics = quickstart / "pure" / "metrics.json"
    before = metrics.read_bytes()
    newest = max((quickstart / "filtered").iterdir(), key=lambda path: path.stat().st_mtime)
    shutil.rmtree(newest)
    metrics.unlink()
    code, output = run(quickstart, "resume=pure")
    assert code == 0, output
    assert "training what is not in the store: purified-0" in output
    assert metrics.read_bytes() == before


LONGER = [*SMALL, "logger=[csv]", "method.distill.iterations=300", "evaluation=[fidelity]"]


@pytest.fixture(scope="module")
def uninterrupted(quickstart):
    code, output = run(quickstart, *LONGER, "hydra.run.dir=whole")
    assert code == 0, output
    return quickstart / "whole"


@pytest.mark.parametrize("way", ["kill", "interrupt"])
def test_a_stopped_run_continues_to_the_same_result(quickstart, uninterrupted, way):
    cut = f"cut-{way}"
    process = start(quickstart, *LONGER, f"hydra.run.dir={cut}")
    checkpoint = quickstart / cut / "checkpoints" / "distill.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL if way == "kill" else signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    state = json.loads((quickstart / cut / "status.json").read_text())["state"]
    assert state == ("running" if way == "kill" else "interrupted")
    if way == "interrupt":
        assert f"resume={cut}" in output
    assert not (quickstart / cut / "explanations.safetensors").exists()
    code, output = run(quickstart, f"resume={cut}")
    assert code == 0, output
    for name in ("explanations.safetensors", "metrics.json"):
        assert (quickstart / cut / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_sweep_that_is_killed_continues_and_trains_its_expert_once(quickstart, uninterrupted):
    sweep = ["-m", *LONGER, "seed=0,1", "store=shared", "hydra.launcher.n_jobs=2"]
    process = start(quickstart, *sweep)
    place = quickstart / "runs" / "digits" / "quickstart"
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
    code, output = run(quickstart, *sweep, "resume=true")
    assert code == 0, output
    assert {job.state for job in read_jobs(folder)} == {"finished"}
    assert (folder / "report.html").exists()
    said = "".join((folder / job / "output.log").read_text() for job in "01")
    assert said.count("training what is not in the store: expert-0") == 1
    assert said.count("is there from an earlier start") == 0
    for name in ("explanations.safetensors", "metrics.json"):
        assert (folder / "0" / name).read_bytes() == (uninterrupted / name).read_bytes()
    assert (folder / "1" / name).read_bytes() != (uninterrupted / name).read_bytes()


def test_a_diverging_run_says_what_to_lower_and_keeps_the_last_good_images(quickstart):
    unbounded = ["method.distill.optimizer.lr=1e30", "method.distill.clip=1e38"]
    code, output = run(quickstart, *SMALL, "logger=[]", "hydra.run.dir=wild", *unbounded)
    assert code == 1
    assert "cwx: distill diverged at step" in output
    assert "Traceback" not in output
    status = json.loads((quickstart / "wild" / "status.json").read_text())
    assert status["state"] == "failed"
    kept = load_file(quickstart / "wild" / "last-good-distill.safetensors")
    assert kept["distill/images"].isfinite().all()
    assert "Traceback" in (quickstart / "wild" / "cwx.log").read_text()


def test_two_processes_perturb_and_attend_as_one(quickstart):
    common = [
        "network.width=4", "procedure.epochs=3", "logger=[]", "store=attended",
        "method=[iscp,universal,gradcam]", "evaluation=[attention,predictive_power]",
        "method.iscp.canvases=1", "method.iscp.passes=1", "method.universal.passes=1",
        "method.universal.chunk=null", "method.gradcam.canvases=2",
        "canvas@method.iscp.canvas=random", "canvas@method.gradcam.canvas=random",
        "evaluation.attention.size=0.1", "evaluation.attention.images=2",
    ]  # fmt: skip
    for name, trainer in (("one-attended", "default"), ("two-attended", "ddp_cpu")):
        code, output = run(quickstart, *common, f"trainer={trainer}", f"hydra.run.dir={name}")
        assert code == 0, output
    tensors, others = (
        load_file(quickstart / folder / "explanations.safetensors")
        for folder in ("one-attended", "two-attended")
    )
    assert tensors["universal/deltas"].shape == (30, 1, 8, 8)
    assert tensors["gradcam/masks"].shape == (20, 8, 8)
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, rtol=0, atol=1e-6)
    for name in ("metrics.json", "tables/attention.csv", "tables/power_canvases.csv"):
        one, two = (quickstart / folder / name for folder in ("one-attended", "two-attended"))
        assert one.read_bytes() == two.read_bytes()
