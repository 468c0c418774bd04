"""What the documents say that can be held against the code: commands, settings, links, names."""

import importlib
import re
import shlex
from functools import cache

import pytest
from documents import ROOT, Document, documents
from test_configuration import CHOICES, EXPERIMENTS, NEEDED, REQUIRED

from cwx import main as entry
from cwx.configuration import ConfigurationError
from cwx.entry import COMMANDS
from cwx.flags import flags
from cwx.overrides import compose_checked, configuration_folder, options
from cwx.resuming import check_launcher

CONF = configuration_folder()
GROUPS = options([CONF])
DOCUMENTS = documents()


@pytest.fixture(autouse=True)
def resolvers():
    entry.register_resolvers()


def each(of):
    """A case for each thing that documents have, and the first document that has it."""
    found = {}
    for document in DOCUMENTS:
        for thing in of(document):
            found.setdefault(repr(thing), pytest.param(thing, id=f"{document.name}: {thing}"))
    return list(found.values())


def compose(overrides, *, multirun=False):
    return compose_checked(CONF, overrides, multirun=multirun, extra=None, resumed=None)


@pytest.mark.parametrize("line", each(lambda document: map(shlex.join, document.commands)))
def test_a_command_is_one(line):
    arguments = shlex.split(line)
    if unfilled := re.search(r"<[^>]*>", line):
        pytest.fail(f"say what {unfilled[0]} may stand for in tests/documents.py")
    if arguments and arguments[0] in COMMANDS:
        parser = importlib.import_module(f"cwx.commands.{arguments[0]}").parser()
        if "--help" not in arguments:
            parser.parse_intermixed_args(arguments[1:])
        return
    asked = flags(arguments)
    # What a run to be continued was started with is written in its folder.
    overrides = [o for o in asked.overrides if not o.startswith("resume=")]
    compose(overrides, multirun=asked.multirun)
    if asked.multirun:
        check_launcher(CONF, overrides, extra=None)


def paths(config, above=""):
    """Every setting and part of a configuration, by its whole name."""
    found = set()
    for key, value in config.items():
        name = f"{above}.{key}" if above else str(key)
        found |= {name} | (paths(value, name) if isinstance(value, dict) else set())
    return found


def compositions():
    """Each experiment, then each choice of each group."""
    for name in EXPERIMENTS:
        yield [f"experiment={name}", *NEEDED.get(name, [])]
    for group in CHOICES.keys() - {"scale"}:
        for name in sorted(GROUPS[group]):
            yield [*(o.format(name) for o in CHOICES[group]), *REQUIRED.get(name, [])]


@cache
def remaining():
    return compositions()


KNOWN = set()


def exists(name):
    """Whether a setting is one of any study; composes no more of them than it takes."""
    while name not in KNOWN and (overrides := next(remaining(), None)):
        KNOWN.update(paths(compose(overrides)))
    return name in KNOWN


def names_of(document):
    """Whole names of settings in backticks, with or without a value; not what + adds."""
    for span in document.spans:
        for word in span.split():
            name = word.partition("=")[0].rpartition("@")[2]
            if re.fullmatch(r"[a-z]\w*(\.\w+)+", name) and name.partition(".")[0] in SECTIONS:
                yield name


SECTIONS = {*CHOICES, "judges"} - {"attack", "augment", "canvas", "covariance", "pooling", "scale"}


@pytest.mark.parametrize("name", each(names_of))
def test_a_setting_exists(name):
    # Judges and attacks are named by whoever adds them.
    assert exists(name) or re.match(r"judges\.\w+", name)


def chosen(document):
    """Choices of a group's file in backticks, such as a sweep's."""
    for span in document.spans:
        for word in span.split():
            key, given, value = word.partition("=")
            group = key.lstrip("+").partition("@")[0]
            if given and group in GROUPS and not value.startswith("<"):
                yield from ((group, name) for name in value.strip("[]").split(",") if name)


@pytest.mark.parametrize("choice", each(chosen))
def test_a_choice_exists(choice):
    group, name = choice
    assert name in GROUPS[group] | {"…"}


@cache
def study(experiment):
    return compose([f"experiment={experiment}", *NEEDED.get(experiment, [])])


@pytest.mark.parametrize("stated", each(lambda document: document.values))
def test_a_table_states_the_value_that_an_experiment_has(stated):
    experiment, setting, value = stated
    found = study(experiment)
    for key in setting.split("."):
        found = found[key]
    assert found == value


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document):
    for link in document.links:
        file, _, heading = link.partition("#")
        target = (document.path.parent / file).resolve() if file else document.path
        assert target.exists(), link
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if heading:
            assert heading in Document(target).headings, link


def code_of(document):
    return (s for s in document.spans if re.fullmatch(r"cwx(\.\w+)+(?<!\.log)", s))


@pytest.mark.parametrize("name", each(code_of))
def test_named_code_exists(name):
    file, *rest = ROOT / "src", *name.split(".")
    while rest and (file / rest[0]).is_dir():
        file /= rest.pop(0)
    if rest and (file / f"{rest[0]}.py").is_file():
        text = (file / f"{rest.pop(0)}.py").read_text(encoding="utf-8")
        assert all(re.search(rf"^\s*(class|def) {part}\b|^{part}\b", text, re.M) for part in rest)
    else:
        assert not rest


def test_every_picture_is_shown_and_small():
    shown = {(d.path.parent / link).resolve() for d in DOCUMENTS for link in d.links}
    for picture in ROOT.glob("docs/**/*.png"):
        assert picture in shown, picture
        assert picture.stat().st_size < 400_000, picture


def test_documents_can_be_wrong():
    """The checks above find what they are for."""
    for refused in ("experiment=cifar10/cwy", "experiment=cifar10/cwx method.distill.steps=3"):
        with pytest.raises(ConfigurationError):
            compose([*refused.split()])
    assert exists("method.distill.inner.steps")
    assert not exists("method.distill.steps")
