"""Processes that begin with cwx and its libraries imported.

Importing torch, Lightning and the other libraries takes far longer than a small study. A server
process imports them once; each start forks the server. Nothing else is shared: a start has its own
command line, folder, environment and output, as a process of the shell has.
"""

import atexit
import contextlib
import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from support.paths import ROOT

_context = multiprocessing.get_context("forkserver")
_sources = ROOT / "src"
_context.set_forkserver_preload(
    sorted(
        ".".join(path.relative_to(_sources).with_suffix("").parts)
        for path in (_sources / "cwx").rglob("*.py")
        if path.stem != "__init__"
    )
)


def _execute(script, arguments, folder, environment, output):
    # A collection of garbage would write to, and so copy, the memory of all libraries.
    gc.freeze()
    file = os.open(output, os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [script, *arguments]
    import torch

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        # multiprocessing ends its processes without these.
        atexit._run_exitfuncs()


class ForkedProcess:
    """A script that runs in a fork of the server, with the interface of `subprocess.Popen`.

    Standard output and standard error go to one file.
    """

    def __init__(self, script, arguments, *, folder, environment):
        file, name = tempfile.mkstemp(suffix=".log")
        os.close(file)
        self.output = Path(name)
        self.process = _context.Process(
            target=_execute,
            args=(script, [str(a) for a in arguments], str(folder), environment, name),
        )
        self.process.start()

    @property
    def pid(self):
        return self.process.pid

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode

    def kill(self):
        self.process.kill()

    def send_signal(self, number):
        os.kill(self.pid, number)

    def communicate(self, timeout=None):
        """The output, once the process has ended, and ``None``."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.process.name, timeout, self.output.read_text())
        text = self.output.read_text(errors="replace")
        with contextlib.suppress(OSError):
            self.output.unlink()
        return text, None
