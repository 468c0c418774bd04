"""The drawing of the package's folders is that of its imports."""

import importlib.util

import pytest
from support.paths import ROOT

SCRIPT = ROOT / "docs" / "draw_architecture.py"


@pytest.fixture(scope="module")
def drawing():
    spec = importlib.util.spec_from_file_location("draw_architecture", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_drawing_is_up_to_date(drawing):
    expected = drawing.draw(drawing.read_arrows())
    assert drawing.DRAWING.read_text() == expected, "run: uv run docs/draw_architecture.py"


def test_imports_are_read_in_every_form(drawing, tmp_path):
    for name, text in {
        "a/x.py": "import cwx.b.y\n",
        "b/y.py": "from cwx import c\nfrom cwx.c import z\n",
        "c.py": "def f():\n    from cwx.d.w import v\n",
        "d/w.py": "import torch\nfrom cwx.d.own import v\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    arrows = drawing.read_arrows(tmp_path)
    assert arrows == {"a": {"b": 1}, "b": {"c": 2}, "c": {"d": 1}, "d": {}}
    assert drawing.floors(arrows) == {"d": 0, "c": 1, "b": 2, "a": 3}


def test_a_circle_of_imports_is_refused(drawing):
    with pytest.raises(ValueError, match="circle of imports: a → b → a"):
        drawing.floors({"a": {"b": 1}, "b": {"a": 1}})
