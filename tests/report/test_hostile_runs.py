"""Pages of runs whose files are damaged, hostile or huge: damage is named, and limits hold."""

import json
import os
import re
import resource
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.html_pages import check, read
from support.run_folders import make_full_run, write

from cwx.report import run as run_module
from cwx.report.run import read_run
from cwx.report.run_page import write_page
from cwx.report.sweep_page import write_report


def page_of(folder):
    page = read(write_page(folder).read_text())
    check(page)
    return page


@pytest.fixture
def run(tmp_path):
    return make_full_run(tmp_path / "run", metrics={"fidelity/ratio": 0.5})


@pytest.mark.parametrize("text", ["5", "[1, 2]", "null", '"x"', "", "{", "[" * 100_000, "\xff"])
def test_a_run_with_a_damaged_status_has_a_page(run, text):
    (run / "status.json").write_bytes(text.encode("latin-1"))
    page = page_of(run)
    assert "no readable status.json" in page.text
    assert "fidelity" in page.text
    write_report([run])


@pytest.mark.parametrize(
    "status",
    [
        {"state": ["x"]}, {"seconds": float("inf")}, {"seconds": 10**400}, {"started": 5},
        {"reason": {"a": 1}}, {"gpus": 3}, {"versions": [1]}, {"experiment": "\ud800 x"},
        {"command": ["\0"]}, {"python": {"x": "y"}},
    ],
)  # fmt: skip
def test_fields_of_other_types_do_not_hide_the_page(run, status):
    before = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**before, **status}))
    assert "fidelity" in page_of(run).text


@pytest.mark.parametrize(
    "settings",
    ["method: [x]", "method: 3", "method: {distill: 5}", "method: null", "- a", "evaluation: []\n",
     "experts: 3", "experts: {early: 5, seeds: {a: 1}}", "data: [1]", "data: {mean: x, std: 0}",
     "&a [*a]", "evaluation: {gallery: {titles: [1]}}"],
)  # fmt: skip
def test_settings_of_other_types_do_not_hide_the_page(run, settings):
    write(run / ".hydra/config.yaml", settings)
    assert "fidelity" in page_of(run).text


def rewrite(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def put(name, convert):
    def change(tensors):
        tensors[f"distill/{name}"] = convert(tensors[f"distill/{name}"])

    return change


DAMAGED_TENSORS = {
    "booleans": put("images", lambda t: t > 0),
    "complex numbers": put("images", lambda t: t.to(torch.complex64)),
    "integers": put("images", lambda t: t.long()),
    "no images": put("images", lambda t: t[:0]),
    "a height of 0": put("images", lambda t: t[:, :, :0]),
    "no channels": put("images", lambda t: t[:, :0]),
    "three dimensions": put("images", lambda t: t[0]),
    "NaN": put("images", lambda t: t / 0 * 0),
    "fewer labels": put("labels", lambda t: t[:-1]),
    "float labels": put("labels", lambda t: t.float()),
    "negative labels": put("labels", lambda t: t - 1),
    "large labels": put("labels", lambda t: t + 5),
    "an unknown tensor": lambda tensors: tensors.update({"distill/x": torch.zeros(1)}),
    "another name": lambda tensors: tensors.update({"z": torch.zeros(1)}),
}


@pytest.mark.parametrize("kind", DAMAGED_TENSORS)
def test_damaged_explanations_are_named(run, kind):
    rewrite(run / "explanations.safetensors", DAMAGED_TENSORS[kind])
    page = page_of(run)
    assert "Damaged files" in page.text
    assert "distill" in page.text or "output of" in page.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_precision_are_shown(run, dtype):
    rewrite(run / "explanations.safetensors", put("images", lambda t: t.to(dtype)))
    page = page_of(run)
    assert "Damaged files" not in page.text
    assert len(page.all("img")) >= 6


def png(file, width, height):
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((height, width), np.uint8)).save(file)


def test_a_png_of_many_pixels_is_left_out(run):
    png(run / "figures/huge.png", 13_300, 13_300)
    png(run / "figures/long.png", 60_000, 1)
    png(run / "figures/broken.png", 10, 10)
    content = bytearray((run / "figures/broken.png").read_bytes())
    content[45] ^= 1
    (run / "figures/broken.png").write_bytes(content)
    (run / "figures/short.png").write_bytes(b"\x89PNG\r\n\x1a\nIEND")
    (run / "figures/folder.png").mkdir()
    os.mkfifo(run / "figures/pipe.png")
    start = time.process_time()
    page = page_of(run)
    assert time.process_time() - start < 10
    assert "Too large for this page" in page.text
    assert page.text.count("This figure is damaged") == 2
    for name in ("broken.png", "short.png", "folder.png", "pipe.png"):
        assert f"figures/{name} cannot be read" in page.text


def test_large_tables_and_logs_are_cut_with_a_remark(run):
    rows = "\n".join(f"{n},{n},{n},x" for n in range(500_000))
    write(run / "tables/big.csv", "a,b,c,d\n" + rows)
    write(run / "tables/cell.csv", "a,b\n1," + "y" * 100_000)
    write(run / "tables/odd.csv", "a\0,b\n\0,\xff\n")
    (run / "cwx.log").write_text("x" * 5_000_000)
    names = ",".join(f"s{n}/q{n}" for n in range(3000))
    values = ",".join(["1"] * 3000)
    write(run / "logs/version_1/metrics.csv", f"step,{names}\n0,{values}\n1,{values}\n")
    (run / "metrics.json").write_text(json.dumps({f"m/{n}": n for n in range(30_000)}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    text = write_page(run).read_text()
    assert time.process_time() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500e3
    assert len(text) < 30e6
    assert "The first 10,000 rows of a file" in text
    assert "10,000 of 30,000 metrics" in text
    assert re.search(r"2,9\d\d of 3,0\d\d training curves", text)
    assert "\0" not in text


@pytest.mark.parametrize(
    "name", ["figures/x.png", "tables/x.csv", "cwx.log", "explanations.safetensors", "metrics.json",
             ".hydra/config.yaml"],
)  # fmt: skip
def test_a_link_out_of_the_run_is_not_embedded(run, tmp_path, name):
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    outside = tmp_path / "secret"
    outside.write_text("a: SECRET\nb,SECRET\n1,SECRET\n")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside)
    page = page_of(run)
    assert "SECRET" not in (run / "report.html").read_text()
    assert f"{name} cannot be read (ValueError: it is a link to a file outside" in page.text


def test_file_names_that_are_not_utf_8_are_shown_and_linked(run):
    for folder, suffix in (("tables", "csv"), ("figures", "png")):
        name = os.fsencode(run / folder) + b"/n\xff<b>." + suffix.encode()
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(b"a,b\n1,2\n")
    text = write_page(run).read_text()
    assert "n\N{REPLACEMENT CHARACTER}" in text
    assert "./tables/n%FF%3Cb%3E.csv" in text


HOSTILE = ('<script>alert(1)</script>', "\"><img src=x onerror=alert(1)>", "javascript:alert(1)",
           "../../../etc/passwd", "{{ 7 * 7 }}", "\ud800\0\x1b]")  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_file_is_markup_and_no_link_leaves_the_run(run, text):
    row = json.dumps(text).replace('"', '""')
    write(run / "tables/classes.csv", f'class,train\n"{row}",1\n"dog",1\n"bird",1\n')
    write(run / "tables/t.csv", f'"{row}",b\n"{row}",1\n')
    status = {"state": "failed", "reason": text, "experiment": text, "command": text,
              "versions": {text: text}, "gpus": [text]}  # fmt: skip
    (run / "status.json").write_text(json.dumps(status))
    (run / "metrics.json").write_text(json.dumps({text: 1, f"fidelity/{text}": 0.5}))
    write(run / ".hydra/overrides.yaml", json.dumps([f"a={text!a}"]))
    write(run / "traceback.txt", text.encode("ascii", "replace").decode())
    source = write_page(run).read_text()
    page = read(source)
    check(page)
    assert "<img src=x" not in source
    assert "<script>alert" not in source
    assert "7 * 7" not in text or "{{ 7 * 7 }}" in source
    assert not re.search("[\0\x1b]", source)
    for anchor in page.all("a"):
        link = anchor.attributes["href"]
        assert link.startswith(("./", "#"))
        assert ".." not in link


def test_a_sweep_of_many_runs_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("cwx.report.sweep_page.MAX_RUNS", 3)
    for number in range(5):
        write(tmp_path / str(number) / "status.json", json.dumps({"state": "finished"}))
        write(tmp_path / str(number) / "metrics.json", json.dumps({"a/b": number}))
    text = write_report([tmp_path]).read_text()
    assert "2 of 5 runs" in text


def test_runs_in_deep_folders_are_found(run, monkeypatch):
    assert read_run(run).state == "finished"
    assert list(run_module._run_folders(run.parent)) == [run]
