"""Which folder may import which: the arrows of the package, folder by folder."""

import ast
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support.paths import ROOT

PACKAGE = ROOT / "src" / "cwx"
FILES = sorted(PACKAGE.rglob("*.py"))
PLUGINS = sorted(PACKAGE.with_name("hydra_plugins").rglob("*.py"))
# From the top to the bottom: a folder imports those on lower floors, and none on its own.
FLOORS = (
    {"cli", "notebook"},
    {"study"},
    {"evaluations", "methods"},
    {"training", "report"},
    {"explanations", "data"},
    {"functional", "networks", "storage"},
    {"errors"},
)
FLOOR = {room: number for number, rooms in enumerate(reversed(FLOORS)) for room in rooms}
# The files that modules of `methods` may import from their folder.
SHARED = {
    "cwx.methods._parallel_search",
    "cwx.methods._mask_search",
    "cwx.methods.construction_algorithms",
}
# By which libraries a folder is known; only these folders may import them.
LIBRARIES = {
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "lightning": {"methods", "training", "data", "cli"},
    "wandb": {"training"},
    "captum": {"networks"},
    "jinja2": {"report"},
    "difflib": {"errors"},
}
# What the launcher of sweeps, and looking at runs, need before torch is there.
LIGHT = [
    *(PACKAGE / "cli" / "sweep").glob("*.py"),
    *(PACKAGE / "cli" / "config").glob("*.py"),
    *(PACKAGE / "cli").glob("*.py"),
    *(PACKAGE / "storage" / f"{n}.py" for n in ("runs", "run_status", "sweeps", "locks", "paths")),
    *(PACKAGE / "storage" / f"{n}.py" for n in ("atomic", "run_files", "quantities")),
]


@cache
def imports(file: Path, *, at_once: bool = False) -> frozenset[str]:
    """The modules that a file imports; `at_once`: only those imported when the file is."""
    tree = ast.parse(file.read_text())
    found = set()
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            inside = {f"{module}.{alias.name}" for alias in node.names}
            # ``from cwx.report import tables`` imports a module of a package.
            found |= {name for name in inside if _is_module(name)} or {module}
    return frozenset(found)


def _is_module(name: str) -> bool:
    place = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("cwx.") and (place.with_suffix(".py").is_file() or place.is_dir())


def own(file: Path) -> set[str]:
    return {name for name in imports(file) if name.startswith("cwx.")}


def room(name: str) -> str:
    return name.split(".")[1]


def module(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)


def named(file: Path) -> str:
    return str(file.relative_to(PACKAGE.parent))


def test_every_room_has_a_floor_and_they_are_few():
    rooms = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES}
    rooms.remove("__init__")
    assert rooms == FLOOR.keys()
    assert len(rooms) <= 14


@pytest.mark.parametrize("file", [f for f in FILES if f.parent != PACKAGE], ids=named)
def test_arrows_point_down(file):
    here = room(module(file))
    up = {name for name in own(file) if room(name) != here and FLOOR[room(name)] >= FLOOR[here]}
    assert not up


def test_no_circle_among_modules():
    arrows = {module(file): own(file) - {module(file)} for file in FILES}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("file", FILES, ids=named)
def test_libraries_stay_in_their_rooms(file):
    here = "" if file.parent == PACKAGE and file.stem == "__init__" else room(module(file))
    outside = {name.split(".")[0] for name in imports(file)}
    for library, rooms in LIBRARIES.items():
        assert library not in outside or here in rooms, f"{library} in {here}"
    if here == "functional":
        assert outside - sys.stdlib_module_names <= {"torch", "cwx"}


@pytest.mark.parametrize("file", sorted((PACKAGE / "methods").glob("*.py")), ids=named)
def test_methods_meet_in_files_alone(file):
    others = {name for name in own(file) if room(name) == "methods"} - SHARED
    # A trainer may be a kind of another.
    assert others <= ({"cwx.methods.expert"} if file.stem == "consistency" else set())


@pytest.mark.parametrize("file", [*PLUGINS, *LIGHT], ids=named)
def test_what_looks_at_runs_and_launches_sweeps_needs_no_torch(file):
    outside = {name.split(".")[0] for name in imports(file, at_once=True)}
    allowed = {"cwx", "filelock", "hydra", "omegaconf", "yaml", "rich", "__main__"}
    # In `atomic`, by the one function that writes tensors.
    assert outside - sys.stdlib_module_names <= allowed
    heavy = {"methods", "evaluations", "training", "report", "explanations", "data", "functional"}
    at_once = {room(n) for n in imports(file, at_once=True) if n.startswith("cwx.")}
    assert not at_once & heavy


def test_nothing_makes_gradients_by_hand_or_moves_to_a_device_by_name():
    for file in FILES:
        text = file.read_text()
        assert ".cuda()" not in text
        assert ".backward()" not in text


def test_files_are_short():
    long = {named(file): n for file in FILES if (n := len(file.read_text().splitlines())) > 300}
    long |= {str(file): n for file in (ROOT / "tests").rglob("*.py")
             if (n := len(file.read_text().splitlines())) > 500}  # fmt: skip
    assert not long
