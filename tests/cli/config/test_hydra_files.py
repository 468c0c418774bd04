"""Saved settings: damage and hostile content is refused in one line that names the file."""

import json
import time
from functools import cache

import pytest
import yaml
from omegaconf import OmegaConf

from cwx.cli import resolvers
from cwx.cli import run as entry
from cwx.cli.config import hydra_files
from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder
from cwx.cli.config.hydra_files import SAVED
from cwx.cli.resume import check_same_job, resolve_resume
from cwx.errors import UserError

CONF = configuration_folder()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    resolvers.register_resolvers()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@cache
def configuration(*overrides):
    return json.dumps(
        compose_checked(CONF, overrides, multirun=False, extra=None, resumed=None), indent=1
    )


def make_saved_run(folder, *overrides):
    """A run's folder with the files from which it is continued."""
    saved = folder / SAVED
    saved.mkdir(parents=True)
    (saved / "overrides.yaml").write_text(yaml.safe_dump([*overrides]))
    (saved / "config.yaml").write_text(configuration(*overrides))
    hydra = {"hydra": {"runtime": {"config_sources": [{"path": "x", "provider": "main"}]}}}
    (saved / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    (folder / "status.json").write_text('{"state": "interrupted"}')
    return saved


def refusal(*words):
    with pytest.raises(UserError) as caught:
        entry._prepare([*words])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_intact_run_is_continued(here):
    make_saved_run(here / "run", "seed=3")
    assert entry._prepare(["resume=run"]) == (["seed=3", "hydra.run.dir='run'"], True)


DAMAGED = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n", "is empty"),
    "a comment": (b"# nothing\n", "is empty"),
    "null": (b"null\n", "is empty"),
    "binary": (bytes(range(256)), "cannot be read ("),
    "zeros": (b"\0" * 4096, "cannot be read ("),
    "unclosed": (b"{{", "cannot be read ("),
    "aliases": (b"a: &a [x]\nb: *a\n", "cannot be read (line 1 has an anchor"),
    "a list": (b"- 1\n- 2\n", "is damaged"),
    "a list of mappings": (b"- a: 1\n", "is damaged"),
    "an empty list": (b"[]\n", "is damaged"),
    "a mapping": (b"a: 1\n", "is damaged"),
    "an empty mapping": (b"{}\n", "is damaged"),
    "a number": (b"5\n", "is damaged"),
    "a text": (b"five\n", "is damaged"),
    "a bool": (b"true\n", "is damaged"),
    "deep brackets": (b"a: '" + b"${" * 500 + b"'\n", "cannot be read ("),
    "interpolations": (b"a: '" + b"${b}" * 3000 + b"'\n", "cannot be read (more than 2,000"),
    "a folder": ("folder", "cannot be read ("),
    "truncated": ("truncated", ""),
    "missing": ("missing", "cannot be read (No such file or directory)"),
}
# The file is intact as such, but it is not the file of this run.
OTHERS = {
    ("config", "a mapping"): "was started by another version of cwx",
    ("config", "an empty mapping"): "was started by another version of cwx",
    ("overrides", "an empty list"): "config.yaml: seed was 3 and is 0",
}


@pytest.mark.parametrize("name", ["overrides", "config", "hydra"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_with_its_name(here, name, damage):
    file = make_saved_run(here / "run", "seed=3") / f"{name}.yaml"
    content, reason = DAMAGED[damage]
    intact = file.read_bytes()
    file.unlink()
    if content == "folder":
        file.mkdir()
    elif content != "missing":
        file.write_bytes(intact[: len(intact) // 2] if content == "truncated" else content)
    if (name, damage) == ("hydra", "missing"):
        # It names no more than the folder of --config-dir.
        assert entry._prepare(["resume=run"])[1]
        return
    message = refusal("resume=run")
    assert OTHERS.get((name, damage), reason) in message
    assert f"run/.hydra/{name}.yaml" in message or (name, damage) in OTHERS


def with_settings(**settings):
    return lambda config: config | settings


HOSTILE = {
    "doubling": with_settings(
        a0="x", **{f"a{n}": f"${{a{n - 1}}}${{a{n - 1}}}" for n in range(1, 60)}
    ),
    "a circle": with_settings(seed="${store}", store="${seed}"),
    "itself": with_settings(seed="${seed}"),
    "the environment": with_settings(seed="${oc.env:CWX_SECRET}"),
    "the environment in a text": with_settings(store="${oc.env:CWX_SECRET}/store"),
    "decoded": with_settings(seed="${oc.decode:${oc.env:CWX_SECRET}}"),
    "code": with_settings(seed="${run:rm}"),
    "a new folder": with_settings(store="${unused:made}"),
    "the whole": with_settings(store="${data}${data}${data}${method}"),
    "a target": lambda config: config | {"network": config["network"] | {"_target_": "${seed}"}},
    "a part": with_settings(network="${data}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_interpolations_of_a_saved_configuration_are_not_resolved(here, monkeypatch, name):
    monkeypatch.setenv("CWX_SECRET", "of the user")
    file = make_saved_run(here / "run", "seed=3") / "config.yaml"
    file.write_text(json.dumps(HOSTILE[name](json.loads(file.read_text()))))

    def resolved(*_):
        raise AssertionError

    for resolver in ("run", "unused"):
        OmegaConf.register_new_resolver(resolver, resolved, replace=True)
    try:
        start = time.monotonic()
        message = refusal("resume=run")
    finally:
        OmegaConf.clear_resolver("run")
        resolvers.register_resolvers()
    assert time.monotonic() - start < 10
    assert "run/.hydra/config.yaml" in message
    assert "of the user" not in message
    assert not (here / "made").exists()


HOSTILE_OVERRIDES = {
    "doubling": ["+a0=x", *(f"+a{n}=${{a{n - 1}}}${{a{n - 1}}}" for n in range(1, 60))],
    "a circle": ["+a=${b}", "+b=${a}"],
    "code": ["seed=${run:rm}"],
    "hydra": ["hydra.job.chdir=true"],
    "hydra's parts": ["hydra/launcher=joblib"],
    "hydra by a plus": ["++hydra.verbose=true"],
}


@pytest.mark.parametrize("name", HOSTILE_OVERRIDES)
def test_hostile_overrides_of_a_saved_run_are_refused_with_their_file(here, name):
    file = make_saved_run(here / "run", "seed=3") / "overrides.yaml"
    file.write_text(json.dumps(HOSTILE_OVERRIDES[name]))
    assert "run/.hydra/overrides.yaml" in refusal("resume=run")


def test_hostile_settings_of_a_saved_sweep_are_refused_with_their_file(here):
    overrides = {"task": ["seed=0,1", "+a=${oc.decode:'${seed}'}"], "hydra": []}
    (here / "mine").mkdir()
    (here / "mine/multirun.yaml").write_text(json.dumps({"hydra": {"overrides": overrides}}))
    assert "mine/multirun.yaml: +a=" in refusal("resume=mine")
    sweep = {"overrides": overrides["task"], "hydra": [], "started": "2026", "jobs": []}
    (here / "mine/sweep.json").write_text(json.dumps(sweep))
    assert "mine/sweep.json: +a=" in refusal("resume=mine")
    sweep["overrides"] = ["seed=0,1", 3]
    (here / "mine/sweep.json").write_text(json.dumps(sweep))
    assert "mine/sweep.json is damaged" in refusal("resume=mine")


def test_references_in_settings_stay_references_when_a_run_is_continued(here, monkeypatch):
    lines = ["store=${oc.env:CWX_STORE}/store", "seed=${experts.held_out.0}"]
    monkeypatch.setenv("CWX_STORE", "first")
    saved = make_saved_run(here / "run", *lines)
    # As Hydra saves it: interpolations unresolved.
    config = json.loads((saved / "config.yaml").read_text())
    config |= {line.partition("=")[0]: line.partition("=")[2] for line in lines}
    (saved / "config.yaml").write_text(json.dumps(config))
    assert hydra_files.overrides(here / "run") == lines
    assert resolve_resume(CONF, ["resume=run"], multirun=False, extra=None).overrides[:2] == lines
    check_same_job(CONF, here / "run", lines, extra=None)
    entry._prepare(["resume=run"])


def test_a_saved_reference_that_is_another_now_is_refused(here):
    file = make_saved_run(here / "run", "seed=3") / "config.yaml"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "seed": "${experts.seeds.0}"}))
    assert "seed was '${experts.seeds.0}' and is 3" in refusal("resume=run")
