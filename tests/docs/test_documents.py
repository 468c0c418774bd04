"""Commands, settings, values, links and names of code in the documents."""

import importlib
import re
import shlex
from functools import cache

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from support.configurations import (
    CHOICES,
    EXPERIMENTS,
    INDEPENDENT,
    NEEDED,
    REQUIRED,
    ROWS,
    row_of_choices,
)
from support.documents import ROOT, Document, documents

from cwx.cli import resolvers
from cwx.cli.app import COMMANDS
from cwx.cli.arguments import parse_arguments
from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder, options, selectable
from cwx.cli.resume import check_launcher
from cwx.errors import UserError

CONF = configuration_folder()
GROUPS = {group: {*selectable(names)} for group, names in options([CONF]).items()}
# The parts of a user in docs/extend.md.
EXAMPLES = ROOT / "docs/examples"
DOCUMENTS = documents()
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


@pytest.fixture(autouse=True)
def register_resolvers(monkeypatch):
    resolvers.register_resolvers()
    monkeypatch.syspath_prepend(str(EXAMPLES))


def compose(overrides, *, extra=None):
    return compose_checked(CONF, overrides, multirun=False, extra=extra, resumed=None)


def first_job(overrides):
    """The overrides of the first job of a sweep; of the others, the choices are looked up.

    `test_a_sweep_of_a_paper_composes` composes all jobs of the published sweeps.
    """
    for line in overrides:
        if line.startswith("optimize="):
            # Only a sweep has it.
            continue
        override = OverridesParser.create().parse_override(line)
        if not override.is_sweep_override() or override.key_or_group.startswith("hydra"):
            yield line
            continue
        group, values = override.key_or_group.partition("@")[0], sweep_values(override)
        assert not (set(values) - GROUPS[group] if group in GROUPS else ())
        yield f"{line.partition('=')[0]}={values[0]}"


def sweep_values(override):
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    return list(override.sweep_string_iterator())


def commands():
    """Each command once, with the first document that has it.

    test_experiments checks those of docs/experiments.md, which is generated.
    """
    first_documents = {}
    for document in (d for d in DOCUMENTS if d.name != "docs/experiments.md"):
        for command in document.commands:
            first_documents.setdefault(shlex.join(command), document.name)
    return [pytest.param(line, id=f"{name}: {line}") for line, name in first_documents.items()]


@pytest.mark.parametrize("line", commands())
def test_commands_compose(line):
    arguments = shlex.split(line)
    if unfilled := re.search(r"<[^>]*>", line):
        pytest.fail(f"add {unfilled[0]} to PLACEHOLDERS of tests/support/documents.py")
    if arguments and arguments[0] in COMMANDS:
        parser = importlib.import_module(f"cwx.cli.commands.{arguments[0]}").parser()
        if "--help" not in arguments:
            parser.parse_intermixed_args(arguments[1:])
        return
    parsed = parse_arguments(arguments)
    # The folder of a resumed run has its other overrides.
    overrides = [o for o in parsed.overrides if not o.startswith("resume=")]
    extra = str(ROOT / parsed.config_dir) if parsed.config_dir else None
    if line == "experiment=own/study":
        # A sentence omits --config-dir.
        extra = str(EXAMPLES)
    compose([*first_job(overrides)] if parsed.multirun else overrides, extra=extra)
    if parsed.multirun:
        check_launcher(CONF, overrides, extra=extra)


def paths(config, above=""):
    """Full names of all settings and parts of a configuration."""
    names = set()
    for key, value in config.items():
        name = f"{above}.{key}" if above else str(key)
        names |= {name} | (paths(value, name) if isinstance(value, dict) else set())
    return names


def all_methods_and_evaluations():
    """Overrides; without files that set what another file sets, which no two studies share."""
    twins = {"accuracy_dong", "representations_mean"}
    for group, excluded in (("method", set()), ("evaluation", twins)):
        yield f"{group}=[{','.join(sorted(GROUPS[group] - excluded))}]"


# Compatible parts, as many as possible in each.
COMBINATIONS = (
    "corruption=badnets dataset_construction=robust purification=revealed adversary=ensemble "
    "fine_tuning=consistency",
    "corruption=sig dataset_construction=non_robust_random recipe=adversarial",
    "corruption=blended_picture corruption.trigger.picture.path=x recipe=consistency "
    "dataset_construction=imported dataset_construction.path=x",
    "corruption=watermark",
)


def compositions():
    """Overrides that together select every choice; those with most settings first."""
    for parts in COMBINATIONS:
        yield ["experiment=cifar10/iscp_comparison", *all_methods_and_evaluations(), *parts.split()]
    for row in ROWS:
        yield [*row_of_choices(row)]
    yield ["experiment=own/study"]
    for name in EXPERIMENTS:
        yield [f"experiment={name}", *NEEDED.get(name, [])]
    for group in sorted({*CHOICES} - {"scale", *INDEPENDENT}):
        for name in sorted(GROUPS[group]):
            yield [*(o.format(name) for o in CHOICES[group]), *REQUIRED.get(name, [])]


@cache
def remaining_compositions():
    return compositions()


KNOWN = set()


def setting_exists(name):
    """Whether any study has the setting; composes only as many studies as necessary."""
    if re.fullmatch(r"evaluation_networks\.\w+", name):
        # Users choose these names.
        return True
    while name not in KNOWN and (overrides := next(remaining_compositions(), None)):
        extra = str(EXAMPLES) if overrides == ["experiment=own/study"] else None
        KNOWN.update(paths(compose(overrides, extra=extra)))
    return name in KNOWN


# Groups that fill a part of another group have no settings under their own name.
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
    """Full names in backticks, with or without a value, except those added with +."""
    words = (word for span in document.spans for word in span.split())
    names = {word.partition("=")[0].rpartition("@")[2] for word in words}
    settings = {n for n in names if re.fullmatch(r"[a-z]\w*(\.\w+)+", n)}
    settings = {n for n in settings if n.partition(".")[0] in SECTIONS}
    assert not [name for name in sorted(settings) if not setting_exists(name)]


@each_document
def test_choices_exist(document):
    """Values of groups in backticks, also several of a sweep."""
    known = options([CONF, EXAMPLES])
    for word in (word for span in document.spans for word in span.split()):
        key, equals, value = word.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if equals and group in GROUPS and not value.startswith("<"):
            choices = {*value.strip("[]").split(",")} - {"", "…"}
            assert choices <= known[group] | {"<name>"}, word


@cache
def study(experiment):
    return compose([f"experiment={experiment}", *NEEDED.get(experiment, [])])


@each_document
def test_values_in_tables_are_those_of_the_experiments(document):
    for experiment, setting, value in document.values:
        actual = study(experiment)
        for key in setting.split("."):
            actual = actual[key]
        assert actual == value, f"{setting} in {experiment}"


@each_document
def test_link_targets_exist(document):
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


def test_every_image_is_linked_and_small():
    linked = {(d.path.parent / link).resolve() for d in DOCUMENTS for link in d.links}
    for image in ROOT.glob("docs/**/*.png"):
        assert image in linked, image
        assert image.stat().st_size < 400_000, image


WRONG_DOCUMENT = """
    python run.py experiment=cifar10/cwx \\
        method.distill.steps=3      # no such setting

See [there](nowhere.md#at-all), or `-m experiment=digits/iscp seed=0,1`:

| symbol | setting | value in `cifar10/cwx` |
|---|---|---|
| $M$ | `method.distill.inner.steps` | 61 |
"""


def test_errors_in_a_document_are_detected(tmp_path):
    (tmp_path / "wrong.md").write_text(WRONG_DOCUMENT)
    document = Document(tmp_path / "wrong.md")
    wrong, sweep = document.commands
    with pytest.raises(UserError, match=re.escape("method.distill.steps")):
        compose(wrong)
    assert sweep == ["-m", "experiment=digits/iscp", "seed=0,1"]
    assert document.links == ["nowhere.md#at-all"]
    assert list(document.values) == [("cifar10/cwx", "method.distill.inner.steps", 61)]
    assert "method.distill.steps" not in paths(study("cifar10/cwx"))
    assert not is_code("cwx.methods.nothing")
    assert not is_code("cwx.methods.distill.Nothing")
