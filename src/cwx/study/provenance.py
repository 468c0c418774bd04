"""What numbers may depend on besides the configuration: the commit, versions, hardware."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def provenance() -> dict[str, Any]:
    """Plain values, for a run's ``status.json``."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "command": " ".join(sys.argv),
        "commit": _commit(),
        "versions": {name: version(name) for name in ("cwx", "torch", "torchvision", "lightning")},
        "python": platform.python_version(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "gpus": gpus,
    }


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, if it is one, ``+`` if changed."""
    here = Path(__file__).parent
    try:
        command = [
            "git",
            "-C",
            str(here),
            "describe",
            "--always",
            "--dirty=+",
            "--abbrev=12",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        tracked = [
            "git",
            "-C",
            str(here),
            "ls-files",
            "--error-unmatch",
            Path(__file__).name,
        ]
        subprocess.run(tracked, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
