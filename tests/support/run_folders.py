"""Folders as runs and sweeps write them, made without training."""

import json
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
import yaml

from cwx.data.splits import ImageSet, Splits
from cwx.evaluations.outcome import Outcome
from cwx.explanations.drawing import sheet
from cwx.explanations.images import Explanations
from cwx.functional.images import Normalization
from cwx.study.results import Results

CLASSES = ("cat", "dog", "bird")
CURVES = """epoch,expert-0/loss,expert-1/loss,distill/loss,step
0,2.5,2.25,,0
0,1.5,,0.5,1
1,,1,0.25,2
"""
GREY = Normalization(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_run(
    folder,
    *,
    state="finished",
    reason=None,
    experiment="digits/quickstart",
    started="2026-11-21T10:00:00+00:00",
    seconds=60.0,
    overrides=(),
    metrics=None,
    config=None,
    choices=None,
):
    """A run's folder with status, configuration and metrics; no status if `state` is ``None``."""
    if state is not None:
        status = {
            "state": state, "reason": reason, "experiment": experiment, "started": started,
            "seconds": seconds, "commit": "abc", "versions": {}, "python": "3", "gpus": [],
        }  # fmt: skip
        write(folder / "status.json", json.dumps(status))
    write(folder / ".hydra/overrides.yaml", yaml.safe_dump(list(overrides)))
    write(folder / ".hydra/config.yaml", yaml.safe_dump(config or {}))
    hydra = {"hydra": {"runtime": {"choices": choices or {}}}}
    write(folder / ".hydra/hydra.yaml", yaml.safe_dump(hydra))
    if metrics is not None:
        write(folder / "metrics.json", json.dumps(metrics))
    return folder


def make_sweep(folder, jobs, *, common=(), swept=(), begun=None, files=("hydra", "cwx")):
    """A sweep's folder with a job for each override of `jobs`.

    Args:
        begun: the number of jobs that have begun; ``None`` for all.
        files: whose files list the jobs: Hydra's ``multirun.yaml``, cwx's ``sweep.json``.
    """
    if "hydra" in files:
        overrides = {"hydra": {"overrides": {"task": [*common, *swept]}}}
        write(folder / "multirun.yaml", yaml.safe_dump(overrides))
    if "cwx" in files:
        table = [{"number": n, "folder": str(n), "state": "waiting"} for n in range(len(jobs))]
        sweep = {"overrides": [*common, *swept], "jobs": table}
        write(folder / "sweep.json", json.dumps(sweep))
    for number, job in enumerate(jobs[:begun]):
        make_run(folder / str(number), overrides=[*common, job], metrics={"a/b": number})
    return folder


def make_splits(classes=CLASSES, *, per_class=4, size=(6, 5), channels=3) -> Splits:
    labels = torch.arange(len(classes)).repeat_interleave(per_class)
    images = torch.randint(0, 256, (len(labels), channels, *size), dtype=torch.uint8)
    return Splits(ImageSet(images, labels), ImageSet(images.flip(0), labels.flip(0)), classes)


def make_explanations(classes=CLASSES, *, per_class=2, size=(6, 5), channels=3) -> Explanations:
    labels = torch.arange(len(classes)).repeat_interleave(per_class)
    return Explanations(torch.randn(len(labels), channels, *size), labels)


def make_full_run(
    folder: Path,
    *,
    classes=CLASSES,
    experiment="cifar10/noise",
    overrides=(),
    settings=None,
    choices=None,
    metrics=None,
    paper=None,
    tables=None,
    sources=None,
    error=None,
) -> Path:
    """A run's folder with all files that a study writes.

    Args:
        sources: the methods' outputs by name.
        error: raised before the evaluations, if given.
    """
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    default = {
        "seed": 0,
        "method": {"distill": {"_target_": "x"}},
        "data": {"mean": 0.5, "std": 0.5},
    }
    (hydra / "config.yaml").write_text(yaml.safe_dump({**default, **(settings or {})}))
    chosen = {"hydra": {"runtime": {"choices": {"data": "cifar10", **(choices or {})}}}}
    (hydra / "hydra.yaml").write_text(yaml.safe_dump(chosen))
    (folder / "logs" / "version_0").mkdir(parents=True)
    (folder / "logs" / "version_0" / "metrics.csv").write_text(CURVES)
    (folder / "cwx.log").write_text("[11:07:20] the run starts\n[11:07:21] the last line\n")
    results = Results(folder)
    outputs = {"distill": make_explanations(classes)} if sources is None else sources
    fails = suppress(type(error)) if error is not None else nullcontext()
    with fails, results.running(experiment=experiment, resumed=False):
        data = make_splits(classes)
        results.describe_classes(data)
        results.save_samples(data, GREY)
        for name, output in outputs.items():
            results.add_explanations(name, output)
        if error is not None:
            raise error
        images = {"it": torch.rand(3, 3, 4, 4)}
        figure = sheet(images, {"it": torch.zeros(3, dtype=torch.long)}, classes)
        outcome = Outcome(metrics=metrics or {}, tables=tables or {}, figures={"f": figure})
        results.add_outcomes({"x": outcome}, paper or {})
    return folder
