"""A run's directory: the one place where a study leaves what it found.

status.json               running, finished, failed or interrupted; when; on what
traceback.txt             of a run that failed, how it came to that
metrics.json              flat name → number
tables/*.csv, figures/*.png
tables/classes.csv        what each class is: name, synset (empty if none), numbers of images
tables/paper.csv          measured numbers beside those of a paper, if it reports any
explanations.safetensors  <method>/images (raw), <method>/labels, a learned <method>/inner_learning_rate;
                          of a mask search <method>/masks and canvases, of a universal perturbation
                          <method>/deltas (cwx.explanations.patterns); words about them are
                          in the file's header
corrupted.safetensors       corrupted: boolean mask, which training images were corrupted, if any were
suspected.safetensors     suspected: boolean mask, which of them a purification left out, if one was asked
samples.safetensors       <kind>/images (bytes), <kind>/labels of some real images
                          (cwx.data.samples); the file's header has the mean and std of the
                          normalisation as JSON
checkpoints/<method>.ckpt while a method runs
report.html, and traces.html beside it where single predictions were traced
"""

import csv
import io
import json
import logging
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.data.samples import sampled
from cwx.data.splits import Splits
from cwx.evaluations.outcome import Outcome, Row
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import MethodOutput
from cwx.explanations.serialisation import read_explanations, write_explanations
from cwx.functional.images import Normalization
from cwx.storage.atomic import atomic, write_json, write_tensors, write_text
from cwx.storage.locks import writing
from cwx.storage.paths import below
from cwx.storage.run_files import (
    CLASSES,
    CORRUPTED,
    EXPLANATIONS,
    METRICS,
    PAPER,
    SAMPLES,
    STATUS,
    SUSPECTED,
    TRACEBACK,
)
from cwx.storage.run_status import read_status as read_status
from cwx.study.provenance import provenance

log = logging.getLogger(__name__)


class Results:
    """Writes one run's directory. What it overwrites, it replaces whole.

    Attributes:
        ended: whether a study has run here and noted how it ended.
    """

    def __init__(self, folder: Path) -> None:
        # A short path, to read and to copy, where there is one.
        self.folder = below(folder, Path.cwd())
        self._began = time.monotonic()
        self.ended = False

    @contextmanager
    def running(self, *, experiment: str, resumed: bool) -> Iterator[None]:
        """Keep the status while a study runs: running, then finished, failed or interrupted.

        Raises:
            ValueError: the folder holds another run already, or another process is writing it.
        """
        with writing(self.folder):
            self._start(experiment=experiment, resumed=resumed)
            try:
                yield
            except (KeyboardInterrupt, SystemExit):
                # Lightning turns both Ctrl-C and SIGTERM into an exit.
                self._broken_off("interrupted", "stopped from outside", "")
                raise
            except BaseException as error:
                told = "".join(traceback.format_exception(error))
                self._broken_off("failed", f"{type(error).__name__}: {error}", told)
                raise
            self._end("finished", None)

    def _start(self, *, experiment: str, resumed: bool) -> None:
        earlier = read_status(self.folder) if (self.folder / STATUS).exists() else {}
        if earlier and not resumed:
            raise ValueError(
                f"{self.folder} holds a run already: continue it with resume={self.folder}, or "
                "choose another hydra.run.dir"
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._earlier_seconds = float(earlier.get("seconds") or 0)
        self._status = {
            "state": "running",
            "reason": None,
            "experiment": experiment,
            "started": earlier.get("started", now),
            "seconds": None,
            **provenance(),
        }
        write_json(self.folder / STATUS, self._status)
        (self.folder / TRACEBACK).unlink(missing_ok=True)

    def _broken_off(self, state: str, reason: str, told: str) -> None:
        """Note it as far as that can be done: a full disk must not hide what went wrong."""
        try:
            self._end(state, reason)
            if told:
                write_text(self.folder / TRACEBACK, told)
        except (OSError, ValueError) as error:
            log.warning("how the run ended could not be noted: %s", error)

    def _end(self, state: str, reason: str | None) -> None:
        seconds = round(self._earlier_seconds + time.monotonic() - self._began, 1)
        self._status |= {"state": state, "reason": reason, "seconds": seconds}
        write_json(self.folder / STATUS, self._status)
        self.ended = True

    def checkpoint(self, stage: str) -> Path:
        return self.folder / "checkpoints" / f"{stage}.ckpt"

    def explanations(self) -> dict[str, MethodOutput]:
        """The explanations of the methods that have finished, by method.

        Raises:
            ValueError: the file is damaged.
        """
        return read_explanations(self.folder / EXPLANATIONS)

    def add_explanations(self, method: str, explanations: MethodOutput) -> None:
        together = {**self.explanations(), method: explanations}
        write_explanations(self.folder / EXPLANATIONS, together)

    def keep_last_good(self, method: str, explanations: Explanations) -> None:
        """Save the last finite images of a method that diverged, apart from those of others."""
        file = self.folder / f"last-good-{method}.safetensors"
        write_explanations(file, {method: explanations})

    def keep_corrupted(self, is_corrupted: Tensor) -> None:
        """Save which training images, in their order, a corruption corrupted ``[n]``."""
        write_tensors(self.folder / CORRUPTED, {"is_corrupted": is_corrupted}, {})

    def keep_suspected(self, suspected: Tensor) -> None:
        """Save which training images, in their order, a purification left out ``[n]``."""
        write_tensors(self.folder / SUSPECTED, {"suspected": suspected}, {})

    def describe_classes(self, splits: Splits) -> None:
        """Write each class's synset and numbers of images, the training ones as trained on."""
        count = len(splits.classes)
        train, test = (
            torch.bincount(images.labels, minlength=count).tolist()
            for images in (splits.train, splits.test)
        )
        rows: list[Row] = [
            {"index": i, "class": name, "synset": synset, "train": train[i], "test": test[i]}
            for i, (name, synset) in enumerate(
                zip(splits.classes, splits.synsets or [""] * count, strict=True)
            )
        ]
        write_text(self.folder / CLASSES, _csv(rows))

    def keep_samples(self, splits: Splits, normalization: Normalization) -> None:
        """Save a few real images of each class, and how pixels were normalised."""
        words = {"mean": json.dumps(normalization.mean), "std": json.dumps(normalization.std)}
        write_tensors(self.folder / SAMPLES, sampled(splits), words)

    def add_outcomes(
        self, outcomes: Mapping[str, Outcome], paper: Mapping[str, float]
    ) -> dict[str, float]:
        """Write all numbers, tables and figures; the numbers are returned together.

        Args:
            outcomes: by evaluation.
            paper: what a paper reports, by number; one that was not measured is left open.
        """
        metrics: dict[str, float] = {}
        for outcome in outcomes.values():
            metrics |= outcome.metrics
            for name, rows in outcome.tables.items():
                write_text(self.folder / "tables" / f"{name}.csv", _csv(rows))
            for name, figure in outcome.figures.items():
                _write_figure(self.folder / "figures" / f"{name}.png", figure)
        if paper:
            write_text(self.folder / PAPER, _csv(_beside(metrics, paper)))
        write_json(self.folder / METRICS, metrics)
        return metrics


def _beside(metrics: Mapping[str, float], paper: Mapping[str, float]) -> list[Row]:
    return [
        {"name": name, "measured": metrics.get(name, ""), "paper": reported}
        for name, reported in paper.items()
    ]


def _csv(rows: list[Row]) -> str:
    header = list(rows[0])
    return "".join(_line(header, row) for row in (dict(zip(header, header, strict=True)), *rows))


def _line(header: list[str], row: Row) -> str:
    text = io.StringIO()
    # Not every version of Python quotes a carriage return in a cell unless lines end in one.
    csv.DictWriter(text, fieldnames=header, lineterminator="\r\n").writerow(row)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _write_figure(path: Path, figure: Figure) -> None:
    with atomic(path) as file:
        figure.savefig(file, format="png")
