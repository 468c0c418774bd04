"""Folders as runs and sweeps leave them, made without running anything."""

import json

import yaml


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
    """A run's folder; without a status if `state` is ``None``."""
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


def make_sweep(folder, jobs, *, common=(), swept=(), begun=None, told=("hydra", "ours")):
    """A sweep's folder with a job for each override of `jobs`; some have not begun.

    Args:
        told: by whose files.
    """
    if "hydra" in told:
        overrides = {"hydra": {"overrides": {"task": [*common, *swept]}}}
        write(folder / "multirun.yaml", yaml.safe_dump(overrides))
    if "ours" in told:
        table = [{"number": n, "folder": str(n), "state": "waiting"} for n in range(len(jobs))]
        sweep = {"overrides": [*common, *swept], "jobs": table}
        write(folder / "sweep.json", json.dumps(sweep))
    for number, job in enumerate(jobs[:begun]):
        make_run(folder / str(number), overrides=[*common, job], metrics={"a/b": number})
    return folder
