"""What the documents say that can be held against the code: commands, settings, links, names."""

import importlib
import re
import shlex
from functools import cache

import pytest
from support.configurations import CHOICES, EXPERIMENTS, NEEDED, REQUIRED
from support.documents import ROOT, Document, documents

from cwx.cli import resolvers
from cwx.cli.app import COMMANDS
from cwx.cli.arguments import parse_arguments
from cwx.cli.config.compose import compose_checked, configuration_folder
from cwx.cli.config.groups import options
from cwx.cli.resume import check_launcher
from cwx.errors import UserError

CONF = configuration_folder()
GROUPS = options([CONF])
# Parts of a user's own, which docs/extend.md shows.
OWN = ROOT / "docs/examples"
DOCUMENTS = documents()
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


@pytest.fixture(autouse=True)
def ready(monkeypatch):
    resolvers.register_resolvers()
    monkeypatch.syspath_prepend(str(OWN))


def compose(overrides, *, multirun=False, extra=None):
    return compose_checked(CONF, overrides, multirun=multirun, extra=extra, resumed=None)


def commands():
    """Each once, by the first document that has it.

    Those of docs/experiments.md are of the files that it is made from: test_experiments has them.
    """
    found = {}
    for document in (d for d in DOCUMENTS if d.name != "docs/experiments.md"):
        for command in document.commands:
            found.setdefault(shlex.join(command), document.name)
    return [pytest.param(line, id=f"{name}: {line}") for line, name in found.items()]


@pytest.mark.parametrize("line", commands())
def test_a_command_is_one(line):
    arguments = shlex.split(line)
    if unfilled := re.search(r"<[^>]*>", line):
        pytest.fail(f"say what {unfilled[0]} may stand for in tests/documents.py")
    if arguments and arguments[0] in COMMANDS:
        parser = importlib.import_module(f"cwx.cli.commands.{arguments[0]}").parser()
        if "--help" not in arguments:
            parser.parse_intermixed_args(arguments[1:])
        return
    asked = parse_arguments(arguments)
    # What a run to be continued was started with is written in its folder.
    overrides = [o for o in asked.overrides if not o.startswith("resume=")]
    extra = str(ROOT / asked.config_dir) if asked.config_dir else None
    if line == "experiment=own/study":
        # What a sentence abbreviates.
        extra = str(OWN)
    compose(overrides, multirun=asked.multirun, extra=extra)
    if asked.multirun:
        check_launcher(CONF, overrides, extra=extra)


def paths(config, above=""):
    """Every setting and part of a configuration, by its whole name."""
    found = set()
    for key, value in config.items():
        name = f"{above}.{key}" if above else str(key)
        found |= {name} | (paths(value, name) if isinstance(value, dict) else set())
    return found


def everything():
    """All methods and evaluations; `accuracy` is in three files, and documented once."""
    for group, left_out in (("method", set()), ("evaluation", {"accuracy_dong"})):
        yield f"{group}=[{','.join(sorted(GROUPS[group] - left_out))}]"


# As many parts as go together.
TOGETHER = (
    "corruption=badnets dataset_construction=robust purification=revealed adversary=ensemble "
    "fine_tuning=consistency",
    "corruption=sig dataset_construction=non_robust recipe=adversarial",
    "corruption=blended_picture corruption.trigger.picture.path=x recipe=consistency "
    "dataset_construction=imported dataset_construction.path=x",
)


def compositions():
    """One after the other, those of most settings first: each choice is in one of them."""
    for parts in TOGETHER:
        yield ["experiment=cifar10/iscp_comparison", *everything(), *parts.split()]
    yield ["experiment=own/study"]
    for name in EXPERIMENTS:
        yield [f"experiment={name}", *NEEDED.get(name, [])]
    for group in [group for group in CHOICES if group != "scale"]:
        for name in sorted(GROUPS[group]):
            yield [*(o.format(name) for o in CHOICES[group]), *REQUIRED.get(name, [])]


@cache
def remaining():
    return compositions()


KNOWN = set()


def exists(name):
    """Whether a setting is one of any study; composes no more of them than it takes."""
    if re.fullmatch(r"evaluation networks\.\w+", name):
        # They are named by whoever adds them.
        return True
    while name not in KNOWN and (overrides := next(remaining(), None)):
        KNOWN.update(paths(compose(overrides, extra=str(OWN))))
    return name in KNOWN


# Groups that fill a part of another have no settings of their own name.
SECTIONS = {*CHOICES, "evaluation_networks"} - {
    "attack",
    "augment",
    "canvas",
    "covariance",
    "pooling",
    "scale",
}


@each_document
def test_settings_exist(document):
    """Whole names in backticks, with or without a value; not what + adds."""
    words = (word for span in document.spans for word in span.split())
    names = {word.partition("=")[0].rpartition("@")[2] for word in words}
    settings = {n for n in names if re.fullmatch(r"[a-z]\w*(\.\w+)+", n)}
    settings = {n for n in settings if n.partition(".")[0] in SECTIONS}
    assert not [name for name in sorted(settings) if not exists(name)]


@each_document
def test_choices_exist(document):
    """Those of a group's files in backticks, such as a sweep's."""
    known = options([CONF, OWN])
    for word in (word for span in document.spans for word in span.split()):
        key, given, value = word.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if given and group in GROUPS and not value.startswith("<"):
            chosen = {*value.strip("[]").split(",")} - {"", "…"}
            assert chosen <= known[group] | {"<name>"}, word


@cache
def study(experiment):
    return compose([f"experiment={experiment}", *NEEDED.get(experiment, [])])


@each_document
def test_tables_state_the_values_that_experiments_have(document):
    for experiment, setting, value in document.values:
        found = study(experiment)
        for key in setting.split("."):
            found = found[key]
        assert found == value, f"{setting} in {experiment}"


@each_document
def test_links_lead_somewhere(document):
    for link in document.links:
        file, _, heading = link.partition("#")
        target = (document.path.parent / file).resolve() if file else document.path
        assert target.exists(), link
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if heading:
            assert heading in Document(target).headings, link


@each_document
def test_named_code_exists(document):
    for name in document.spans:
        if re.fullmatch(r"cwx(\.\w+)+(?<!\.log)", name):
            assert is_code(name), name


def is_code(name):
    file, *rest = ROOT / "src", *name.split(".")
    while rest and (file / rest[0]).is_dir():
        file /= rest.pop(0)
    if not rest or not (file / f"{rest[0]}.py").is_file():
        return not rest
    text = (file / f"{rest.pop(0)}.py").read_text(encoding="utf-8")
    return all(re.search(rf"^\s*(class|def) {part}\b|^{part}\b", text, re.M) for part in rest)


def test_every_picture_is_shown_and_small():
    shown = {(d.path.parent / link).resolve() for d in DOCUMENTS for link in d.links}
    for picture in ROOT.glob("docs/**/*.png"):
        assert picture in shown, picture
        assert picture.stat().st_size < 400_000, picture


MISTAKEN = """
    python run.py experiment=cifar10/cwx \\
        method.distill.steps=3      # there is none

See [there](nowhere.md#at-all), or `-m experiment=digits/iscp seed=0,1`:

| symbol | setting | value in `cifar10/cwx` |
|---|---|---|
| $M$ | `method.distill.inner.steps` | 61 |
"""


def test_documents_are_read_as_they_are_meant(tmp_path):
    (tmp_path / "mistaken.md").write_text(MISTAKEN)
    document = Document(tmp_path / "mistaken.md")
    wrong, sweep = document.commands
    with pytest.raises(UserError, match=re.escape("method.distill.steps")):
        compose(wrong)
    assert sweep == ["-m", "experiment=digits/iscp", "seed=0,1"]
    assert document.links == ["nowhere.md#at-all"]
    assert list(document.values) == [("cifar10/cwx", "method.distill.inner.steps", 61)]
    assert "method.distill.steps" not in paths(study("cifar10/cwx"))
    assert not is_code("cwx.methods.nothing")
    assert not is_code("cwx.methods.distill.Nothing")
