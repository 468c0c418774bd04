"""One Weights & Biases run a study: the one place that knows W&B."""

import csv
import logging
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger

log = logging.getLogger(__name__)

STEP = "trainer/global_step"
# What the artefact of a run holds, as far as it is there.
_ARTEFACT = ("explanations.safetensors", "metrics.json", "tables/classes.csv")
# W&B refuses longer tags, and cuts longer groups and job types.
_TAG, _NAME = 64, 128


class WandbRun(WandbLogger):
    """Keeps a study as a run of W&B: offline in the study's folder, or uploaded.

    A study that is continued goes on with its run, by the same `id`: offline that is one more log
    of that id, whose rows come after all earlier ones. Everything that W&B writes lies in
    ``<save_dir>/wandb``, and no variable of the environment outlives the run.

    Args:
        save_dir: the study's folder.
        project, entity: where the run belongs; ``None`` for the account's own entity.
        id: the same for the same study.
        name: what it is called there.
        group: of runs that belong together; ``None`` for a study by itself.
        job_type: what runs of a group are told apart by.
        tags: by which runs are found.
        sweep: the folder of the sweep that the study is a job of: ``<sweep>/wandb`` gets a link to
            the log of each of its jobs, to look at them together; ``None`` for a study by itself.
        mode: offline, online or disabled.
        patience: seconds that an upload may take when the study is over; what is missing then can
            still be uploaded by ``wandb sync``. 0 waits as long as it takes.
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
        patience: float,
    ) -> None:
        self._before = {k: v for k, v in os.environ.items() if k.startswith("WANDB")}
        folder = Path(save_dir) / "wandb"
        first = _first_row(folder, id)
        # Else copies of tables lie in the user's home until they are uploaded.
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
                # Never a run that something else in this process has begun.
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
            log.info("its W&B run is %s", run.url)

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:
        """Keep the resolved configuration, as it nests."""
        configuration = vars(params) if isinstance(params, Namespace) else dict(params)
        self.experiment.config.update(configuration, allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row of values, pictures or tables, at a step of the stage that trains."""
        row = dict(metrics) if step is None else {**metrics, STEP: step}
        self.experiment.log(row, step=self._row, commit=True)
        self._row += 1

    def log_results(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """Keep what a finished study has left in its `folder`.

        Numbers become the run's summary, tables and figures one row of its history, and
        explanations with what was measured on them an artefact.
        """
        self.experiment.summary.update(dict(metrics))
        tables = {f"tables/{f.stem}": _table(f) for f in sorted(folder.glob("tables/*.csv"))}
        figures = {
            f"figures/{f.stem}": wandb.Image(str(f)) for f in sorted(folder.glob("figures/*.png"))
        }
        if tables or figures:
            self.log_metrics({**tables, **figures})
        if (folder / _ARTEFACT[0]).exists():
            artefact = wandb.Artifact(f"explanations-{self.experiment.id}", type="explanations")
            for name in _ARTEFACT:
                if (folder / name).exists():
                    # They are not written again: no copy is needed. By their whole path, for an
                    # upload may start elsewhere.
                    whole = str((folder / name).resolve())
                    artefact.add_file(whole, name=name, policy="immutable")
            self.experiment.log_artifact(artefact)

    def finish(self, exit_code: int, reason: str | None) -> None:
        """End the run, and with it the process that W&B keeps for it."""
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
        os.environ.update(self._before)


def _first_row(folder: Path, id: str) -> int:
    """A row number beyond all in the earlier logs of this run: no row is as short as a byte.

    Uploaded one after another, the logs of one run must not share a row number.
    """
    return sum(f.stat().st_size for f in folder.glob(f"*run-*-{id}/run-{id}.wandb"))


def _link(written: Path, together: Path) -> None:
    """Put a link to a log beside those of other jobs, unless W&B keeps none."""
    if not written.is_dir():
        return
    try:
        together.mkdir(exist_ok=True)
        (together / written.name).symlink_to(os.path.relpath(written, together))
    except OSError as error:
        # It is there without.
        log.debug("no link to %s in %s: %s", written, together, error)


def _table(file: Path) -> wandb.Table:
    with file.open(newline="") as lines:
        header, *rows = csv.reader(lines)
    columns = [_column([row[place] for row in rows]) for place in range(len(header))]
    return wandb.Table(columns=[*header], data=[list(row) for row in zip(*columns, strict=True)])


def _column(cells: Sequence[str]) -> Sequence[str | float | None]:
    """Numbers where all that is not empty is one, for W&B takes one type a column."""
    try:
        metrics = [_number(cell) if cell else None for cell in cells]
    except ValueError:
        return cells
    return metrics if any(number is not None for number in metrics) else cells


def _number(cell: str) -> float:
    value = int(cell) if cell.removeprefix("-").isdecimal() else float(cell)
    if str(value) != cell:
        raise ValueError(f"{cell} is a name that looks like a number")
    return value
