import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
from cwx.cli.allocator import keep_freed_memory
from cwx.data.free_memory import release_freed_memory

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

if sys.argv[1] != "leave":
    keep_freed_memory()
before = resident()
block = bytearray(64 * 2**20)
del block
if sys.argv[1] == "release":
    release_freed_memory()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="does nothing without glibc")
@pytest.mark.parametrize(("mode", "stays"), [("keep", True), ("leave", False), ("release", False)])
def test_a_freed_block_stays_with_the_process_until_it_is_released(mode, stays):
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True
    )
    assert (float(process.stdout) > 50) == stays


def test_nothing_happens_without_glibc(monkeypatch):
    from cwx.cli import allocator
    from cwx.data import free_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: pytest.fail("called malloc"))
    allocator.keep_freed_memory()
    free_memory._glibc.cache_clear()
    free_memory.release_freed_memory()
    free_memory._glibc.cache_clear()
