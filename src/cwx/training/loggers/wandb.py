"""One Weights & Biases run per study; the only module that uses W&B."""

import csv
import logging
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import wandb
from lightning.pytorch.loggers import WandbLogger

log = logging.getLogger(__name__)

STEP = "trainer/global_step"
# The files of a run's artifact, if they exist.
_ARTIFACT = ("explanations.safetensors", "metrics.json", "tables/classes.csv")
# W&B refuses longer tags, and truncates longer groups and job types.
_TAG, _NAME = 64, 128


class WandbRun(WandbLogger):
    """Logs a study as a W&B run: offline in the run directory, or uploaded.

    A resumed study continues its W&B run with the same `id`: offline, W&B writes another log of
    this id, whose row numbers follow those of all earlier logs. W&B writes only into
    ``<save_dir>/wandb``; changes of environment variables are undone at the end.

    Args:
        save_dir: the run directory.
        project: the W&B project of the run.
        entity: the W&B entity of the run; ``None`` for the account's default.
        id: identifies the study; a resumed study has the same id.
        name: display name of the run.
        group: name of a group of runs; ``None`` for a single study.
        job_type: distinguishes runs within a group.
        tags: tags of the run.
        sweep: directory of the sweep that contains this study; ``<sweep>/wandb`` gets a link to
            the log of each job, to open them together. ``None`` for a single study.
        mode: offline, online or disabled.
        patience: largest time in seconds to wait for uploads at the end of the study; ``wandb
            sync`` can upload the rest later. 0 waits without limit.
    """

    def __init__(
        self,
        *,
        save_dir: str,
        project: str,
        entity: str | None,
        id: str,
        name: str,
        group: str | None,
        job_type: str | None,
        tags: Sequence[str],
        sweep: str | None,
        mode: str,
        patience: Annotated[float, ">= 0"],
    ) -> None:
        self._environment = {k: v for k, v in os.environ.items() if k.startswith("WANDB")}
        folder = Path(save_dir) / "wandb"
        first = _first_row(folder, id)
        # By default W&B stages copies of tables in the user's home directory.
        os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve() / "data"))
        try:
            run = wandb.init(
                dir=save_dir,
                project=project,
                entity=entity,
                id=id,
                name=name[:_NAME],
                group=group and group[-_NAME:],
                job_type=job_type and job_type[-_NAME:],
                tags=[tag[:_TAG] for tag in tags],
                mode=mode,  # type: ignore[arg-type]
                resume="allow",
                # Never reuse another run of this process.
                reinit="create_new",
                settings=wandb.Settings(silent=True, finish_timeout=patience),
            )
        except BaseException:
            self._restore_environment()
            raise
        super().__init__(save_dir=save_dir, project=project, id=id, name=name, experiment=run)
        self._row = max(first, run.step)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        if sweep is not None:
            _link(Path(run.dir).parent, Path(sweep) / "wandb")
        if mode == "online":
            log.info("W&B run: %s", run.url)

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:
        """Log the resolved configuration as nested values."""
        configuration = vars(params) if isinstance(params, Namespace) else dict(params)
        self.experiment.config.update(configuration, allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log a row of values, images or tables, at a step of the current stage."""
        row = dict(metrics) if step is None else {**metrics, STEP: step}
        self.experiment.log(row, step=self._row, commit=True)
        self._row += 1

    def log_results(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """Log the results of a finished study from its run directory.

        Metrics are written to the run's summary, tables and figures to one row of its history, and
        the explanations with their metrics to an artifact.
        """
        self.experiment.summary.update(dict(metrics))
        tables = {f"tables/{f.stem}": _table(f) for f in sorted(folder.glob("tables/*.csv"))}
        figures = {
            f"figures/{f.stem}": wandb.Image(str(f)) for f in sorted(folder.glob("figures/*.png"))
        }
        if tables or figures:
            self.log_metrics({**tables, **figures})
        if (folder / _ARTIFACT[0]).exists():
            artifact = wandb.Artifact(f"explanations-{self.experiment.id}", type="explanations")
            for name in _ARTIFACT:
                if (folder / name).exists():
                    # The files do not change, so W&B needs no copy. The path is absolute because
                    # an upload may start in another directory.
                    path = str((folder / name).resolve())
                    artifact.add_file(path, name=name, policy="immutable")
            self.experiment.log_artifact(artifact)

    def finish(self, exit_code: int, reason: str | None) -> None:
        """End the run and the W&B process behind it."""
        try:
            if reason is not None:
                self.experiment.summary["reason"] = reason
        finally:
            try:
                self.experiment.finish(exit_code=exit_code)
                wandb.teardown()
            finally:
                self._restore_environment()

    def _restore_environment(self) -> None:
        for name in [name for name in os.environ if name.startswith("WANDB")]:
            del os.environ[name]
        os.environ.update(self._environment)


def _first_row(folder: Path, id: str) -> int:
    """A row number above all row numbers in the earlier logs of this run.

    Logs of one run must not share row numbers when they are uploaded. Every row takes more than
    one byte, so the total size in bytes of the earlier logs is such a number.
    """
    return sum(f.stat().st_size for f in folder.glob(f"*run-*-{id}/run-{id}.wandb"))


def _link(log_directory: Path, sweep_directory: Path) -> None:
    """Link a log beside those of the other jobs of a sweep, if W&B writes a log."""
    if not log_directory.is_dir():
        return
    try:
        sweep_directory.mkdir(exist_ok=True)
        link = sweep_directory / log_directory.name
        link.symlink_to(os.path.relpath(log_directory, sweep_directory))
    except OSError as error:
        # The link is only a convenience.
        log.debug("no link to %s in %s: %s", log_directory, sweep_directory, error)


def _table(file: Path) -> wandb.Table:
    with file.open(newline="") as lines:
        header, *rows = csv.reader(lines)
    columns = [_column([row[index] for row in rows]) for index in range(len(header))]
    return wandb.Table(columns=[*header], data=[list(row) for row in zip(*columns, strict=True)])


def _column(cells: Sequence[str]) -> Sequence[str | float | None]:
    """The cells as numbers if all non-empty cells are numbers: W&B needs one type per column."""
    try:
        numbers = [_number(cell) if cell else None for cell in cells]
    except ValueError:
        return cells
    return numbers if any(number is not None for number in numbers) else cells


def _number(cell: str) -> float:
    value = int(cell) if cell.removeprefix("-").isdecimal() else float(cell)
    if str(value) != cell:
        raise ValueError(f"{cell} is a name that looks like a number")
    return value
