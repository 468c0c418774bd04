"""Composes each configuration of the repository once: Hydra takes some tenths of a second."""

import hashlib
import os
import pickle
from functools import cache, wraps
from pathlib import Path

from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from omegaconf import base
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


def read_files_once(patched):
    """Leave out what takes Hydra longest, with the same result.

    Hydra parses each file for each composition, and builds a map for interpolations in each
    defaults list, most of which have none.

    Args:
        patched: a monkeypatch.
    """
    load, interpolation_map = ConfigRepository.load_config, defaults_list._create_interpolation_map
    # By the sources and the path.
    loaded = {}

    def load_once(repository, config_path):
        sources = repository.get_sources()
        if not {s.path for s in sources if isinstance(s, FileConfigSource)} <= _FOLDERS:
            return load(repository, config_path)
        key = (config_path, *((type(s), s.provider, s.path) for s in sources))
        if key not in loaded:
            loaded[key] = pickle.dumps(load(repository, config_path))
        # Hydra changes what it has loaded.
        return pickle.loads(loaded[key])

    def map_if_needed(overrides, defaults, self_added):
        needed = any(default.is_interpolation() for default in defaults)
        return interpolation_map(overrides, defaults, self_added) if needed else None

    patched.setattr(ConfigRepository, "load_config", load_once)
    # The same few hundred interpolations.
    patched.setattr(base, "parse", cache(base.parse))
    patched.setattr(defaults_list, "_create_interpolation_map", map_if_needed)
