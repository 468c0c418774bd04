"""What loggers are sent, what W&B keeps of it offline, and that none of them ends a study."""

import json
import logging
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from PIL import Image
from support.builders import expert_requests, experts, sgd, stages

from cwx.methods.activation import ActivationMaximisation
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.callbacks.log_images import LogPictures
from cwx.training.loggers.fault_tolerant import FaultTolerantLogger
from cwx.training.loggers.logger_group import LoggerGroup
from cwx.training.loggers.wandb import WandbRun

CALLS = (
    "log_hyperparams", "log_metrics", "log_image", "log_graph", "after_save_checkpoint", "save",
    "finalize", "log_results", "finish",
)  # fmt: skip


class Counting(Logger):
    """Counts what it is asked, and raises at one call; `experiment` is a call too."""

    def __init__(self, fails: str | None) -> None:
        super().__init__()
        self.fails, self.calls, self.ends = fails, [], []

    def _called(self, name):
        self.calls.append(name)
        if name == self.fails:
            raise RuntimeError(f"{name} is down")

    @property
    def experiment(self):
        self._called("experiment")
        return self

    @property
    def name(self):
        return "counting"

    version = name

    def log_hyperparams(self, params):
        self._called("log_hyperparams")

    def log_metrics(self, metrics, step=None):
        self._called("log_metrics")

    def log_image(self, key, images, step=None):
        self._called("log_image")

    def log_graph(self, model, input_array=None):
        self._called("log_graph")

    def after_save_checkpoint(self, checkpoint_callback):
        self._called("after_save_checkpoint")

    def save(self):
        self._called("save")

    def finalize(self, status):
        self._called("finalize")

    def log_results(self, folder, metrics):
        self._called("log_results")

    def finish(self, exit_code, reason):
        self._called("finish")
        self.ends.append((exit_code, reason))


def giving(logger):
    """What a configuration builds a logger by."""
    return lambda **_: logger


@pytest.fixture
def results(tmp_path):
    """What a finished study leaves in its folder."""
    folder = tmp_path / "run"
    (folder / "tables").mkdir(parents=True)
    (folder / "figures").mkdir()
    rows = "class,value,std,empty,seven\ncat,0.5,,,007\ndog,1,0.25,,7\n"
    (folder / "tables/odd.csv").write_text(rows)
    Image.new("RGB", (5, 4)).save(folder / "figures/gallery.png")
    (folder / "explanations.safetensors").write_bytes(b"tensors")
    (folder / "metrics.json").write_text('{"fidelity/ratio": 0.25}')
    return folder


def activation(subject, **changes):
    settings = {
        "images_per_class": 1, "iterations": 4, "optimizer": sgd(1.0), "blur_every": 2,
        "blur_position": "after",
        "blur_sigma": 0.5, "initial_std": 1.0, "clamp": True, "checkpoint_every": 2,
    }  # fmt: skip
    return ActivationMaximisation(
        subject=subject, seed=0, stage="activation", **{**settings, **changes}
    )


@pytest.mark.parametrize("fails", [*CALLS, "experiment", "start", None])
def test_an_error_of_a_logger_does_not_stop_the_study(subject, results, tmp_path, fails, caplog):
    """Through a whole study's calls, those of Lightning's trainer among them."""
    bad, good = Counting(fails), Counting(None)

    def build(save_dir):
        assert save_dir == str(results)
        if fails == "start":
            raise RuntimeError("start is down")
        return bad

    def train(missing):
        return experts(subject.data, [one.seed for one in missing], epochs=1)

    running = stages()
    with (
        caplog.at_level(logging.WARNING, "cwx"),
        running.logger_group.run({"bad": build, "good": giving(good)}, results, {"a": 1}),
    ):
        running.train(train, expert_requests(0), TrajectoryStore(tmp_path / "store"), at_once=1)
        method = activation(subject)
        running.fit(
            method, tmp_path / "x.ckpt", [LogPictures("activation", subject.data.normalization)]
        )
        running.logger_group.add_results(results, {"fidelity/ratio": 0.25})
    assert method.explanations().images.isfinite().all()
    warned = [m for m in caplog.messages if "continues without it" in m]
    unused = {"log_graph", "after_save_checkpoint"} - set(good.calls)
    assert len(warned) == (fails is not None and fails not in unused)
    assert {"log_hyperparams", "log_metrics", "log_image", "log_results", "finish"} <= {*good.calls}
    if fails in ("log_metrics", "log_image"):
        # Not asked again, but to end.
        assert bad.calls.count(fails) == 1
        assert bad.calls[-1] == "finish"


@pytest.mark.parametrize("call", [c for c in CALLS if c not in ("log_image", "log_results")])
def test_an_error_in_any_call_of_a_logger_is_caught(call, caplog):
    inner = Counting(call)
    guarded = FaultTolerantLogger(inner, "x")
    given = {
        "log_hyperparams": ({},), "log_metrics": ({}, 1), "log_graph": (None,),
        "after_save_checkpoint": (None,), "finalize": ("success",), "finish": (1, "why"),
    }.get(call, ())  # fmt: skip
    with caplog.at_level(logging.WARNING, "cwx"):
        getattr(guarded, call)(*given)
        getattr(guarded, call)(*given)
    assert caplog.messages[0] == (
        f"logger x failed; the run continues without it: RuntimeError: {call} is down"
    )
    # To the end, it is asked each time.
    assert inner.calls.count(call) == (2 if call == "finish" else 1)


def test_a_fault_tolerant_logger_has_the_methods_of_the_wrapped_logger():
    assert hasattr(FaultTolerantLogger(Counting(None), "x"), "log_image")
    assert not hasattr(FaultTolerantLogger(Counting(None), "x"), "log_audio")
    assert not hasattr(FaultTolerantLogger(CSVLogger(save_dir="."), "x"), "log_image")
    # Which Lightning looks for, and which may fail.
    assert not hasattr(FaultTolerantLogger(Counting("experiment"), "x"), "experiment")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (None, 0, None),
        (ValueError("too much"), 1, "ValueError: too much"),
        (KeyboardInterrupt(), 255, "stopped from outside"),
        (SystemExit(0), 255, "stopped from outside"),
    ],
)
def test_loggers_are_closed_however_the_study_ends(tmp_path, error, code, reason):
    inner, loggers = Counting(None), LoggerGroup()
    ending = nullcontext() if error is None else pytest.raises(type(error))
    with ending, loggers.run({"x": giving(inner)}, tmp_path, {}):
        if error is not None:
            raise error
    assert inner.ends == [(code, reason)]
    assert loggers.loggers == []


def record(folder, *, mode="offline", **changes):
    named = {
        "project": "cwx", "entity": None, "id": "0123abcd", "name": "digits/quickstart seed=1",
        "group": "runs/digits/sweep", "job_type": "digits/quickstart", "tags": ["digits", "small"],
        "patience": 5.0, "sweep": None,
    }  # fmt: skip
    return WandbRun(save_dir=str(folder), mode=mode, **{**named, **changes})


def inspected(log: Path):
    """The records of an offline run, by their type, as W&B's own reader has them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = {}
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        found.setdefault(entry["type"], []).append(entry[entry["type"]])
    return found


def logs(folder):
    return sorted(folder.glob("wandb/offline-run-*-0123abcd"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A study's folder with its offline run, which failed, and was continued to its end."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    rows = "class,value,std,empty,seven\ncat,0.5,,,007\ndog,1.0,0.25,,7\n"
    (folder / "tables/odd.csv").write_text(rows)
    Image.new("RGB", (5, 4)).save(folder / "figures/gallery.png")
    (folder / "explanations.safetensors").write_bytes(b"tensors")
    (folder / "metrics.json").write_text('{"fidelity/ratio": 0.25}')
    before = dict(os.environ)
    for attempt in range(2):
        logger = record(folder)
        logger.log_hyperparams({"method": {"distill": {"lr": 0.1, "_target_": "x.Y"}}, "n": None})
        for step in (5, 10):
            logger.log_metrics({"distill/loss": 1 / step, "epoch": attempt}, step)
            picture = torch.full((3, 4, 5), step / 10)
            logger.log_image(key="distill/images", images=[picture], step=step)
        if attempt:
            logger.log_results(folder, {"fidelity/ratio": 0.25, "bad": float("nan")})
        logger.finish(1 - attempt, None if attempt else "ValueError: too much")
        assert dict(os.environ) == before
    return folder


@pytest.fixture(scope="module")
def read(kept):
    """Both logs of it, read back."""
    return [inspected(log) for log in logs(kept)]


def test_a_run_is_named_grouped_and_tagged(read):
    assert len(read) == 2
    for found in read:
        (run,) = found["run"]
        assert run["run_id"] == "0123abcd"
        assert run["display_name"] == "digits/quickstart seed=1"
        assert run["run_group"] == "runs/digits/sweep"
        assert run["job_type"] == "digits/quickstart"
        assert run["tags"] == ["digits", "small"]


def test_the_configuration_is_logged_as_nested_values(read):
    (found,) = read[0]["config"]
    assert found["update"]["method"]["distill"] == {"lr": 0.1, "_target_": "x.Y"}


def test_metrics_are_in_the_summary_and_not_in_the_history(read):
    found = read[1]
    summary = {k: v for entry in found["summary"] for k, v in entry.get("update", {}).items()}
    assert summary["fidelity/ratio"] == 0.25
    assert summary["bad"] is None
    assert not any("fidelity/ratio" in row["item"] for row in found["history"])


def test_curves_and_images_are_logged_at_their_steps(kept, read):
    rows = [row["item"] for row in read[0]["history"]]
    curve = [(r["trainer/global_step"], r["distill/loss"]) for r in rows if "distill/loss" in r]
    assert curve == [(5, 0.2), (10, 0.1)]
    pictures = [r for r in rows if "distill/images._type" in r]
    assert [r["trainer/global_step"] for r in pictures] == [5, 10]
    for row in pictures:
        (name,) = row["distill/images.filenames"]
        with Image.open(logs(kept)[0] / "files" / name) as picture:
            assert picture.size == (5, 4)


def test_tables_keep_numbers_and_names_apart(kept, read):
    row = read[1]["history"][-1]["item"]
    table = json.loads((logs(kept)[1] / "files" / row["tables/odd.path"]).read_text())
    assert table["columns"] == ["class", "value", "std", "empty", "seven"]
    assert table["data"] == [["cat", 0.5, None, "", "007"], ["dog", 1.0, 0.25, "", "7"]]
    assert (row["figures/gallery.width"], row["figures/gallery.height"]) == (5, 4)


def test_explanations_are_an_artifact(kept, read):
    artifacts = {a["name"]: a for a in read[1]["artifact"]}
    explanations = artifacts["explanations-0123abcd"]
    assert explanations["type"] == "explanations"
    contents = {c["path"]: c["local_path"] for c in explanations["manifest"]["contents"]}
    assert contents == {
        name: str(kept.resolve() / name) for name in ("explanations.safetensors", "metrics.json")
    }


def test_all_files_are_in_the_run_directory(kept, read):
    for found in read:
        for artifact in found.get("artifact", []):
            for part in artifact["manifest"]["contents"]:
                assert Path(part["local_path"]).is_relative_to(kept.resolve())


def test_the_exit_code_and_reason_are_logged(read):
    first, second = read
    assert [found["exit"][0].get("exit_code", 0) for found in (first, second)] == [1, 0]
    reasons = [entry["update"] for entry in first["summary"] if "reason" in entry.get("update", {})]
    assert reasons == [{"reason": "ValueError: too much"}]


def test_a_resumed_run_appends_after_its_earlier_rows(read):
    """Uploaded one after the other, no row of the second log takes the place of one of the first.

    Whether W&B's servers join them is theirs to say; they drop rows whose number is not new.
    """
    first, second = ([row["step"]["num"] for row in found["history"]] for found in read)
    assert first == sorted(set(first))
    assert second == sorted(set(second))
    assert first[-1] < second[0]


def test_mode_disabled_writes_nothing(tmp_path):
    before = dict(os.environ)
    logger = record(tmp_path, mode="disabled")
    logger.log_hyperparams({"a": 1})
    logger.log_metrics({"loss": 1.0}, 1)
    logger.log_results(tmp_path, {"a": 0.5})
    logger.finish(0, None)
    assert not list(tmp_path.rglob("*.wandb"))
    assert dict(os.environ) == before


def test_a_run_that_cannot_start_restores_the_environment(tmp_path):
    before = dict(os.environ)
    with pytest.raises(Exception, match="mode"):
        record(tmp_path, mode="sideways")
    assert dict(os.environ) == before


def test_names_too_long_for_w_and_b_are_truncated(tmp_path):
    logger = record(tmp_path, tags=["x" * 100], name="y" * 300, group="z" * 200)
    logger.finish(0, None)
    (run,) = inspected(logs(tmp_path)[0])["run"]
    assert run["tags"] == ["x" * 64]
    assert len(run["display_name"]) == len(run["run_group"]) == 128


def test_two_runs_in_one_process_are_separate_and_linked_in_their_sweep(tmp_path):
    for name in ("one", "two"):
        logger = record(tmp_path / name, id=name, sweep=str(tmp_path))
        logger.log_metrics({"loss": 1.0}, 1)
        logger.finish(0, None)
    of_jobs = sorted(tmp_path.glob("*/wandb/offline-*"))
    assert {log.name.rpartition("-")[2] for log in of_jobs} == {"one", "two"}
    links = sorted((tmp_path / "wandb").iterdir())
    assert {link.resolve() for link in links} == {log.resolve() for log in of_jobs}
    # Also after the sweep has moved.
    assert all(not Path(link.readlink()).is_absolute() for link in links)
