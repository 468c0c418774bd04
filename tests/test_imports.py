"""Which way the arrows point."""

import ast
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

PACKAGE = ROOT / "src" / "cwx"
FILES = sorted(PACKAGE.rglob("*.py"))
ENTRY = {"main", "overrides", "resuming", "saved", "flags", "naming", "completion", "failures"}
PLUGINS = sorted(PACKAGE.with_name("hydra_plugins").rglob("*.py"))
# What the entry, and the launcher of sweeps, may import before torch is needed.
LIGHT = {"configuration", "files", "overrides", "progress", "resuming", "saved"}
LIGHT |= {"places", "signatures", "status"}
SWEEPS = sorted((PACKAGE / "sweeps").glob("*.py"))


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def roots(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


def place(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_arrows_point_one_way(file):
    folder, names = place(file), imports(file)
    ours = {name for name in names if name.startswith("cwx.")}
    if file.stem not in ENTRY:
        assert not roots(file) & {"hydra", "omegaconf"}
    if folder not in ("methods", "callbacks", "loggers", "data", "failures.py"):
        assert "lightning" not in roots(file)
    if folder == "functional":
        assert all(name.startswith("cwx.functional") for name in ours)
        assert roots(file) - sys.stdlib_module_names <= {"torch", "cwx"}
    forbidden = {
        "networks": ("cwx.methods", "cwx.evaluations", "cwx.data", "cwx.study.study"),
        "data": ("cwx.methods", "cwx.evaluations", "cwx.study.study", "cwx.study.results"),
        "methods": (
            "cwx.methods",
            "cwx.evaluations",
            "cwx.study.study",
            "cwx.study.results",
            "cwx.report",
        ),
        "callbacks": ("cwx.methods", "cwx.evaluations", "cwx.study.study", "cwx.report"),
        "evaluations": ("cwx.methods", "cwx.study.study", "cwx.study.results", "cwx.report"),
        "report": ("cwx.methods", "cwx.evaluations", "cwx.study.study", "cwx.data"),
        "loggers": ("cwx.methods", "cwx.evaluations", "cwx.study.study", "cwx.data", "cwx.report"),
        "commands": (
            "cwx.methods",
            "cwx.evaluations",
            "cwx.study.study",
            "cwx.data",
            "cwx.networks",
        ),
    }
    for prefix in forbidden.get(folder, ()):
        assert not {name for name in ours if name.startswith(prefix)}


@pytest.mark.parametrize(
    "file",
    [*PLUGINS, *SWEEPS, *(PACKAGE / f"{name}.py" for name in sorted(LIGHT))],
    ids=lambda f: f.stem,
)
def test_what_launches_a_sweep_needs_no_torch(file):
    allowed = {"cwx", "filelock", "__main__"}
    if file in PLUGINS or file.stem in ENTRY:
        allowed |= {"hydra", "omegaconf", "yaml"}
    assert at_once(file) - sys.stdlib_module_names <= allowed
    ours = {name.split(".")[1] for name in imports(file) if name.startswith("cwx.")}
    assert ours <= LIGHT | {"sweeps"}


def at_once(file: Path) -> set[str]:
    """What is imported when the file is, rather than by a function of it."""
    top = ast.parse(file.read_text()).body
    plain = [node for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {a.name for node in plain if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module or "" for node in plain if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def test_nothing_makes_gradients_by_hand_or_moves_to_a_device_by_name():
    for file in FILES:
        text = file.read_text()
        assert ".cuda()" not in text
        assert ".backward()" not in text
