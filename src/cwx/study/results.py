"""The directory of a run, which holds all results of a study.

status.json               state (running, finished, failed or interrupted), times, provenance
inputs.json               fingerprints of the images, files and networks that the run reads
traceback.txt             traceback of a failed run
metrics.json              flat mapping: metric name → number
tables/*.csv, figures/*.png
tables/classes.csv        per class: name, synset (empty if none), numbers of images
tables/corruption.csv     what a corruption of the training images changed, and a backdoor's target
tables/paper.csv          measured metrics beside those of a paper, if it reports any
explanations.safetensors  <method>/images (raw), <method>/labels, a learned
                          <method>/inner_learning_rate; for a mask search <method>/masks and
                          <method>/canvases, for a universal perturbation <method>/deltas
                          (cwx.explanations.patterns), for largest margins <method>/unit_images and
                          <method>/start_margins (cwx.explanations.margins); descriptions are in
                          the file's header
method_seconds.json       the time that each method took, over all starts of the run
images/<method>/*.png     each image as displayed (cwx.explanations.picture_files)
corrupted.safetensors     is_corrupted: boolean mask of corrupted training images, if any;
                          is_cover: of those that are not poisoned, for backdoors with cover images
suspected.safetensors     suspected: boolean mask of training images that a purification removed
cured.safetensors         the weights of the network without the trigger, if there was a cure
samples.safetensors       <kind>/images (bytes), <kind>/labels of some real images, and in the
                          header mean and std of the normalisation as JSON (cwx.data.samples)
checkpoints/<method>.ckpt while a method runs
neuron_atlas/*.safetensors units of all layers (cwx.evaluations.atlas.columns), and their images
neuron_pairs/*.png        pictures of the neurons that volunteers compare
report.html               the report, and perhaps traces.html, neuron_atlas.html, neuron_pairs.html
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
from torch import Tensor, nn

from cwx.data.corruption import CorruptionResult
from cwx.data.datamodule import ImageData
from cwx.data.samples import sample_images
from cwx.data.splits import Splits
from cwx.evaluations.outcome import Outcome, Row
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import MethodOutput
from cwx.explanations.picture_files import write_pictures
from cwx.explanations.serialisation import read_explanations, write_explanations
from cwx.functional.images import Normalization
from cwx.storage.atomic import atomic, write_bytes, write_json, write_tensors, write_text
from cwx.storage.locks import writing
from cwx.storage.paths import below
from cwx.storage.run_files import (
    CLASSES,
    CORRUPTED,
    CORRUPTION,
    CURED,
    EXPLANATIONS,
    IMAGES,
    METHOD_SECONDS,
    METRICS,
    PAPER,
    RESERVE,
    SAMPLES,
    STATUS,
    SUSPECTED,
    TRACEBACK,
)
from cwx.storage.run_inputs import ChangedInputError, RunInputs
from cwx.storage.run_status import read_numbers, run_seconds, start_run, write_status
from cwx.storage.run_status import read_status as read_status
from cwx.study.provenance import provenance

log = logging.getLogger(__name__)


class Results:
    """Writes the directory of one run. Files are replaced atomically.

    Attributes:
        inputs: fingerprints of what the study reads.
        ended: whether a study has run here and its final state is recorded.
    """

    def __init__(self, folder: Path) -> None:
        # Relative to the working directory if possible: shorter to read and to copy.
        self.folder = below(folder, Path.cwd())
        self.inputs = RunInputs(self.folder)
        self._start_time = time.monotonic()
        self.ended = False

    @contextmanager
    def running(self, *, experiment: str, resumed: bool) -> Iterator[None]:
        """Record the status of a study: running, then finished, failed or interrupted.

        Raises:
            ValueError: the folder already holds another run, or another process writes to it.
            ChangedInputError: raised in the block; an earlier status then stays.
        """
        with writing(self.folder):
            self._start(experiment=experiment, resumed=resumed)
            try:
                yield
            except ChangedInputError as error:
                if self._earlier:
                    write_status(self.folder, self._earlier)
                else:
                    self.record_failure("failed", str(error), "")
                raise
            except (KeyboardInterrupt, SystemExit):
                # Lightning turns both Ctrl-C and SIGTERM into an exit.
                self.record_failure("interrupted", "stopped from outside", "")
                raise
            except BaseException as error:
                self.fail(error)
                raise
            self._end("finished", None)

    def fail(self, error: BaseException) -> None:
        """Record that an error ended the run."""
        details = "".join(traceback.format_exception(error))
        self.record_failure("failed", f"{type(error).__name__}: {error}", details)

    def _start(self, *, experiment: str, resumed: bool) -> None:
        earlier = read_status(self.folder) if (self.folder / STATUS).exists() else {}
        if earlier and not resumed:
            raise ValueError(
                f"{self.folder} holds a run already: continue it with resume={self.folder}, or "
                "choose another hydra.run.dir"
            )
        self._earlier = earlier
        self.inputs.start(resumed=bool(earlier))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._earlier_seconds = run_seconds(earlier) or 0.0
        self._status = {
            "state": "running",
            "reason": None,
            "experiment": experiment,
            "started": earlier.get("started", now),
            "seconds": None,
            **provenance(),
        }
        start_run(self.folder, self._status)

    def record_failure(self, state: str, reason: str, details: str) -> None:
        """Record the end of the run; an error here (full disk) must not hide the original error."""
        try:
            self._end(state, reason)
            if details:
                write_text(self.folder / TRACEBACK, details)
        except (OSError, ValueError) as error:
            log.warning("the final state of the run could not be recorded: %s", error)

    def _end(self, state: str, reason: str | None) -> None:
        seconds = round(self._earlier_seconds + time.monotonic() - self._start_time, 1)
        self._status |= {"state": state, "reason": reason, "seconds": seconds}
        write_status(self.folder, self._status)
        (self.folder / RESERVE).unlink(missing_ok=True)
        self.ended = True

    def checkpoint(self, stage: str) -> Path:
        return self.folder / "checkpoints" / f"{stage}.ckpt"

    def explanations(self) -> dict[str, MethodOutput]:
        """The explanations of the finished methods, by method.

        Raises:
            ValueError: the file is damaged.
        """
        return read_explanations(self.folder / EXPLANATIONS)

    def add_explanations(self, method: str, explanations: MethodOutput) -> None:
        by_method = {**self.explanations(), method: explanations}
        write_explanations(self.folder / EXPLANATIONS, by_method)

    def method_seconds(self) -> dict[str, float]:
        """The time that the finished methods took, over all starts of the run, in seconds."""
        try:
            seconds, _ = read_numbers(self.folder / METHOD_SECONDS)
        except (OSError, ValueError):
            return {}
        return seconds

    def add_seconds(self, method: str, seconds: float) -> None:
        by_method = {**self.method_seconds(), method: round(seconds, 1)}
        write_json(self.folder / METHOD_SECONDS, by_method)

    def save_images(self, method: str, output: MethodOutput, data: ImageData) -> None:
        """Save each image of a method as a PNG file."""
        write_pictures(self.folder / IMAGES, method, output, data.classes, data.normalization)

    def save_last_good(self, method: str, explanations: Explanations) -> None:
        """Save the last finite images of a method that diverged, in a file of their own."""
        file = self.folder / f"last-good-{method}.safetensors"
        write_explanations(file, {method: explanations})

    def save_corrupted(self, corrupted: CorruptionResult, row: Row) -> None:
        """Save which training images, in their order, were corrupted, and a summary.

        Args:
            corrupted: the masks ``[n]``.
            row: see `cwx.study.corruption_row`.
        """
        masks = {"is_corrupted": corrupted.is_corrupted}
        if corrupted.is_cover is not None:
            masks["is_cover"] = corrupted.is_cover
        write_tensors(self.folder / CORRUPTED, masks, {})
        write_text(self.folder / CORRUPTION, _csv([row]))

    def save_suspected(self, suspected: Tensor) -> None:
        """Save the boolean mask of training images that a purification removed ``[n]``."""
        write_tensors(self.folder / SUSPECTED, {"suspected": suspected}, {})

    def save_cured(self, network: nn.Module) -> None:
        """Save the weights of the network from which a cure removed a trigger."""
        weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        write_tensors(self.folder / CURED, weights, {})

    def describe_classes(self, splits: Splits) -> None:
        """Write the synset and the numbers of training and test images of each class.

        Training images are counted by the labels that are trained on.
        """
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

    def save_samples(self, splits: Splits, normalization: Normalization) -> None:
        """Save a few real images of each class, and the mean and std of the normalisation."""
        header = {"mean": json.dumps(normalization.mean), "std": json.dumps(normalization.std)}
        write_tensors(self.folder / SAMPLES, sample_images(splits), header)

    def add_outcomes(
        self, outcomes: Mapping[str, Outcome], paper: Mapping[str, float]
    ) -> dict[str, float]:
        """Write all metrics, tables, figures and further files.

        Args:
            outcomes: by the part of the study that made them.
            paper: values that a paper reports, by metric; the cell of a metric that was not
                measured stays empty.

        Returns:
            the metrics of all evaluations.
        """
        metrics: dict[str, float] = {}
        for outcome in outcomes.values():
            metrics |= outcome.metrics
            for name, rows in outcome.tables.items():
                write_text(self.folder / "tables" / f"{name}.csv", _csv(rows))
            for name, figure in outcome.figures.items():
                _write_figure(self.folder / "figures" / f"{name}.png", figure)
            for name, content in outcome.files.items():
                write_bytes(self.folder / name, content)
        if paper:
            write_text(self.folder / PAPER, _csv(_comparison_rows(metrics, paper)))
        write_json(self.folder / METRICS, metrics)
        return metrics


def _comparison_rows(metrics: Mapping[str, float], paper: Mapping[str, float]) -> list[Row]:
    return [
        {"name": name, "measured": metrics.get(name, ""), "paper": reported}
        for name, reported in paper.items()
    ]


def _csv(rows: list[Row]) -> str:
    header = list(rows[0])
    return "".join(_line(header, row) for row in (dict(zip(header, header, strict=True)), *rows))


def _line(header: list[str], row: Row) -> str:
    text = io.StringIO()
    # Some versions of Python quote a carriage return in a cell only if lines end in one.
    csv.DictWriter(text, fieldnames=header, lineterminator="\r\n").writerow(row)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _write_figure(path: Path, figure: Figure) -> None:
    with atomic(path) as file:
        figure.savefig(file, format="png")
