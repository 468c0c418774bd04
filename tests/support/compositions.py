"""Composes each configuration of the repository once: Hydra takes some tenths of a second."""

import contextlib
import hashlib
import os
import pickle
from functools import wraps
from pathlib import Path

import pytest
from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository
from support.paths import CONF, ROOT

# No test writes files there.
_FOLDERS = {str(CONF), str(ROOT / "docs/examples")}
# By the sources and the path.
_LOADED = {}


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
            with _each_file_read_once():
                partial.write_bytes(pickle.dumps(compose(overrides, folders)))
            partial.replace(file)
        return pickle.loads(file.read_bytes())

    return remembered


@contextlib.contextmanager
def _each_file_read_once():
    """Without what takes Hydra longest, and with the same result.

    It parses each file for each composition, and builds a map for interpolations in each defaults
    list, most of which have none.
    """
    load, interpolation_map = ConfigRepository.load_config, defaults_list._create_interpolation_map

    def load_once(repository, config_path):
        sources = [(type(s), s.provider, s.path) for s in repository.get_sources()]
        key = (config_path, *sources)
        if key not in _LOADED:
            _LOADED[key] = pickle.dumps(load(repository, config_path))
        # Hydra changes what it has loaded.
        return pickle.loads(_LOADED[key])

    def map_if_needed(overrides, defaults, self_added):
        needed = any(default.is_interpolation() for default in defaults)
        return interpolation_map(overrides, defaults, self_added) if needed else None

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ConfigRepository, "load_config", load_once)
        patched.setattr(defaults_list, "_create_interpolation_map", map_if_needed)
        yield
