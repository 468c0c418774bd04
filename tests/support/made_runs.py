"""Folders such as runs leave, made in no time."""

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


def splits(classes=CLASSES, *, per_class=4, size=(6, 5), channels=3) -> Splits:
    labels = torch.arange(len(classes)).repeat_interleave(per_class)
    images = torch.randint(0, 256, (len(labels), channels, *size), dtype=torch.uint8)
    return Splits(ImageSet(images, labels), ImageSet(images.flip(0), labels.flip(0)), classes)


def explanations(classes=CLASSES, *, per_class=2, size=(6, 5), channels=3) -> Explanations:
    labels = torch.arange(len(classes)).repeat_interleave(per_class)
    return Explanations(torch.randn(len(labels), channels, *size), labels)


def made_run(
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
    """A run's folder; it ends by `error` before anything is measured, if there is one."""
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    plain = {"seed": 0, "method": {"distill": {"_target_": "x"}}, "data": {"mean": 0.5, "std": 0.5}}
    (hydra / "config.yaml").write_text(yaml.safe_dump({**plain, **(settings or {})}))
    chosen = {"hydra": {"runtime": {"choices": {"data": "cifar10", **(choices or {})}}}}
    (hydra / "hydra.yaml").write_text(yaml.safe_dump(chosen))
    (folder / "logs" / "version_0").mkdir(parents=True)
    (folder / "logs" / "version_0" / "metrics.csv").write_text(CURVES)
    (folder / "cwx.log").write_text("[11:07:20] this run begins\n[11:07:21] and says its last\n")
    results = Results(folder)
    left = {"distill": explanations(classes)} if sources is None else sources
    fails = suppress(type(error)) if error is not None else nullcontext()
    with fails, results.running(experiment=experiment, resumed=False):
        data = splits(classes)
        results.describe_classes(data)
        results.keep_samples(data, GREY)
        for name, source in left.items():
            results.add_explanations(name, source)
        if error is not None:
            raise error
        images = {"it": torch.rand(3, 3, 4, 4)}
        figure = sheet(images, {"it": torch.zeros(3, dtype=torch.long)}, classes)
        outcome = Outcome(metrics=metrics or {}, tables=tables or {}, figures={"f": figure})
        results.add_outcomes({"x": outcome}, paper or {})
    return folder
