"""Composes each configuration of the repository once: Hydra takes some tenths of a second."""

import hashlib
import os
import pickle
from functools import wraps
from pathlib import Path

from support.paths import CONF, ROOT

# No test writes files there.
_FOLDERS = {str(CONF), str(ROOT / "docs/examples")}


def remember(compose, memory):
    """`compose` of `cwx.cli.config.compose`, which remembers what it has composed.

    Only without an error, and for the same overrides, working directory and environment.

    Args:
        memory: a folder, which workers may share.
    """

    @wraps(compose)
    def remembered(overrides, folders):
        if not {str(folder) for folder in folders} <= _FOLDERS:
            return compose(overrides, folders)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        key = repr([*overrides, *folders, Path.cwd(), sorted(environment.items())])
        file = memory / hashlib.sha256(key.encode()).hexdigest()
        if not file.exists():
            partial = file.with_name(f"{file.name}.{os.getpid()}")
            partial.write_bytes(pickle.dumps(compose(overrides, folders)))
            partial.replace(file)
        return pickle.loads(file.read_bytes())

    return remembered
