"""The order of the tests, and settings of the processes that run them.

Nothing large is imported here: the process that only starts the workers imports this file, too.
"""

import gc
import os
import sys
from pathlib import Path

if sys.dont_write_bytecode:
    # Some containers forbid bytecode files. Without them, each of many processes compiles torch
    # and the other libraries anew, which takes longer than importing them.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

# Modules that start studies in processes of their own, or compose most studies: workers take these
# first, the others fill the time that is left.
SLOW_MODULES = (
    "cli/test_app", "study/steps/test_dataset_construction", "docs/test_examples",
    "cli/sweep/test_cwx_processes", "cli/sweep/test_subprocess_job", "docs/test_documents",
    "cli/config/test_experiments_compose", "cli/test_experiments", "evaluations/test_class_names",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not any(name in item.nodeid for name in SLOW_MODULES))


def pytest_collection_finish(session):
    # What has been imported stays until the end. Without this, each full collection of garbage
    # goes through all of torch and the other libraries.
    gc.freeze()


def pytest_unconfigure():
    # Libraries complain of objects that are not collected at the end.
    gc.unfreeze()


def pytest_configure(config):
    # Only a process that leaves all tests to workers distributes them.
    if config.getoption("dist", "no") == "no":
        _prepare_tests(config)


def _prepare_tests(config):
    import torch
    from hypothesis import settings

    settings.register_profile("offline", deadline=None, max_examples=30, derandomize=True)
    settings.load_profile("offline")
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Several workers, each with a thread a core, would wait for each other most of the time.
        torch.set_num_threads(1)
    config.pluginmanager.import_plugin("support.fixtures")
