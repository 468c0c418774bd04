"""What results may depend on besides the configuration: commit, versions, hardware."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def provenance() -> dict[str, Any]:
    """Provenance of a run as plain values, for ``status.json``."""
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
    """The commit of the git checkout of this package, with ``+`` if it has uncommitted changes.

    Returns:
        ``None`` outside a checkout.
    """
    directory = Path(__file__).parent
    try:
        command = [
            "git",
            "-C",
            str(directory),
            "describe",
            "--always",
            "--dirty=+",
            "--abbrev=12",
        ]
        description = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        )
        is_tracked = [
            "git",
            "-C",
            str(directory),
            "ls-files",
            "--error-unmatch",
            Path(__file__).name,
        ]
        subprocess.run(is_tracked, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return description.stdout.strip() or None
