"""The Python face: open runs and sweeps, and the example that the documents show."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.paths import ROOT
from support.run_folders import make_run, make_sweep, write

import cwx
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import Patterns
from cwx.explanations.serialisation import write_explanations
from cwx.notebook import OpenRun

CLASSES = tuple("0123456789")
LABELS = torch.arange(10).repeat_interleave(2)
RUN = Path("runs/digits/quickstart/example")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a run and a sweep, as studies leave them."""
    monkeypatch.chdir(tmp_path)
    config = {"seed": 0, "method": {"distill": {}, "iscp": {}}}
    metrics = {"fidelity/ratio": 0.25, "power/x": None}
    make_run(RUN, overrides=["seed=0"], metrics=metrics, config=config)
    write(RUN / "tables/classes.csv", "index,class\n" + "".join(f"{c},{c}\n" for c in CLASSES))
    write(RUN / "tables/fidelity.csv", "ratio,expert\n0.25,100\n")
    images = torch.linspace(-1, 1, 20).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone()
    patterns = Patterns(
        explains="expert",
        masks=torch.ones(10, 8, 8),
        canvases=torch.full((10, 1, 8, 8), 0.75),
        labels=torch.arange(10),
        searched=torch.ones(3, dtype=torch.bool),
    )
    explanations = {"distill": Explanations(images, LABELS), "iscp": patterns}
    write_explanations(RUN / "explanations.safetensors", explanations)
    real = torch.full((10, 1, 8, 8), 51, dtype=torch.uint8)
    parts = {f"{kind}/images": real.clone() for kind in ("real", "mean")}
    parts |= {f"{kind}/labels": torch.arange(10) for kind in ("real", "mean")}
    header = {"mean": "[0.5]", "std": "[0.5]"}
    save_file(parts, RUN / "samples.safetensors", metadata=header)
    make_sweep(Path("runs/digits/noise"), ["corruption.rate=0", "corruption.rate=0.5"])
    for job, ratio in enumerate((0.2, 0.7)):
        write(Path(f"runs/digits/noise/{job}/metrics.json"), f'{{"fidelity/ratio": {ratio}}}')
    return tmp_path


def test_the_package_is_there_at_once():
    code = "import sys, cwx; assert not {'torch', 'lightning', 'hydra', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"functional", "open_run", "open_sweep"} <= set(dir(cwx))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cwx.nothing


def test_functional_has_every_topic():
    names = {file.stem for file in (ROOT / "src/cwx/functional").glob("[a-z]*.py")}
    assert set(cwx.functional.__all__) == names
    assert names <= set(dir(cwx.functional))
    for name in names:
        assert getattr(cwx.functional, name).__name__ == f"cwx.functional.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cwx.functional.nothing


def test_a_run_gives_metrics_tables_and_settings(here):
    run = cwx.open_run(RUN)
    assert (run.state, run.experiment, run.overrides) == (
        "finished",
        "digits/quickstart",
        ("seed=0",),
    )
    assert run.metrics == {"fidelity/ratio": 0.25}
    assert run.settings["seed"] == 0
    assert run.table("fidelity") == [{"ratio": "0.25", "expert": "100"}]
    assert "digits/quickstart, finished, 1 metrics" in repr(run)


def test_images_are_of_their_classes_and_in_the_unit_range(here):
    run = cwx.open_run(str(RUN))
    distilled = run.images("distill")
    assert list(distilled) == list(run.classes) == list(CLASSES)
    for images in distilled.values():
        assert images.shape == (2, 1, 8, 8)
        assert 0 <= images.min() <= images.max() <= 1
    assert run.images("iscp")["7"].allclose(torch.tensor(0.75), atol=1e-6)
    assert run.real_images("mean")["3"].allclose(torch.tensor(0.2))


def test_the_figure_of_a_class_has_a_column_an_image(here):
    run = cwx.open_run(RUN)
    figure = run.figure("3")
    # One test image, two of the distiller, one pattern.
    assert len(figure.axes) == 4
    titles = " ".join(text.get_text() for text in figure.texts)
    assert all(word in titles for word in ("test", "distill", "iscp", "3"))


def test_a_sweep_gives_a_row_a_run(here):
    sweep = cwx.open_sweep("runs/digits/noise")
    rows = sweep.rows()
    assert [row["corruption.rate"] for row in rows] == ["0", "0.5"]
    assert [row["fidelity/ratio"] for row in rows] == [0.2, 0.7]
    assert len(sweep) == 2
    assert isinstance(sweep[0], OpenRun)
    everything = cwx.open_sweep("runs").rows()
    assert len(everything) == 3
    (alone,) = (row for row in everything if "example" in row["run"])
    assert alone["corruption.rate"] == ""
    assert alone["seed"] == "0"


def test_a_frame_is_of_pandas_where_that_is_installed(here, monkeypatch):
    class Pandas:
        DataFrame = staticmethod(lambda rows: ("frame", rows))

    sweep = cwx.open_sweep("runs/digits/noise")
    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    assert sweep.frame() == ("frame", sweep.rows())
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"pandas is not installed: .* use rows\(\)"):
        sweep.frame()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda run: run.images("distil"), "no explanations of 'distil': did you mean distill?"),
        (lambda run: run.table("fidelit"), "no table 'fidelit': did you mean fidelity?"),
        (lambda run: run.real_images("reel"), "images of kind 'reel': did you mean real?"),
        (lambda run: run.figure("x"), "'x', and there is no such class among the 10"),
        (lambda _: cwx.open_run("runs/digits"), "not a single run: it holds 3 runs"),
        (lambda _: cwx.open_run("nowhere"), "nowhere is not a folder"),
        (lambda run: cwx.open_sweep(run.folder / "tables"), "there is no run in"),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest(here, ask, message):
    run = cwx.open_run(RUN)
    with pytest.raises(ValueError, match=re.escape(message)):
        ask(run)


def test_a_run_that_has_not_begun_says_so(here):
    for name in ("samples.safetensors", "metrics.json"):
        (RUN / name).unlink()
    run = cwx.open_run(RUN)
    assert run.metrics == {}
    with pytest.raises(ValueError, match="samples.safetensors is missing or damaged"):
        run.images("distill")
    (RUN / "explanations.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="explanations.safetensors is damaged"):
        cwx.open_run(RUN).images("distill")


def test_the_example_of_the_documents_runs_as_it_stands(here, capsys):
    text = (ROOT / "docs/notebook.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == 5
    scope = {}
    for example in examples:
        exec(compile(example, "docs/notebook.md", "exec"), scope)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "finished digits/quickstart"
    assert "0.5 0.7" in lines
    assert math.isclose(float(lines[-1].strip("tensor()")), 0.4375 + 1 - 0.8660254, abs_tol=1e-4)
    assert Path("three.png").stat().st_size > 0
