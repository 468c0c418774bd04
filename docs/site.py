"""Hooks of MkDocs (`mkdocs.yml`): API reference, pages from outside `docs/`, formulas as MathML.

`Docstrings` is an extension of Griffe, which reads the docstrings for mkdocstrings.

The reference has a page for each folder of `src/cwx`, and one for each topic of `cwx.functional`.
A new module appears on the page of its folder without a change here, a new module of
`cwx.functional` on the page "Common" unless `TOPICS` names it.
"""

import ast
import html
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
# Files outside `docs/`, by their page of the site.
OUTSIDE = {"project.md": "README.md", "benchmarks.md": "benchmarks/README.md"}
# Title of each folder of `src/cwx`, in the order of the site.
FOLDERS = {
    "methods": "Methods",
    "evaluations": "Evaluations",
    "training": "Training",
    "data": "Data",
    "explanations": "Explanations",
    "networks": "Networks",
    "storage": "Storage",
    "study": "Study",
    "report": "Report pages",
    "cli": "Command line",
}
# Modules of `cwx.functional`; "Common" has the others.
TOPICS = {
    "Distillation (CWX)": [
        "unroll",
        "inner_loop",
        "loss_derivatives",
        "network_loss",
        "trajectory_distance",
        "augmentation",
    ],
    "Patterns (ISCP)": [
        "mask_search",
        "canvas_sampling",
        "universal_perturbation",
        "feature_matching",
    ],
    "Neurons (Dong et al.)": [
        "top_activations",
        "class_similarity",
        "occlusion",
        "prediction_difference",
        "representation_distance",
        "class_gaussians",
        "consistency_loss",
    ],
    "Attacks": ["attacks", "ensemble_attack", "attack_targets"],
    "Backdoor detection": [
        "trigger_inversion",
        "bank_comparison",
        "maximum_margin",
        "poison_separation",
        "neural_cleanse_index",
        "auroc",
    ],
    "Corruption": [
        "backdoor",
        "all_to_all",
        "patches",
        "warping",
        "cover_trigger",
        "adaptive_triggers",
        "input_aware",
        "label_noise",
        "trigger_scores",
        "matched_filter",
    ],
}


def _public_modules(folder: Path) -> list[Path]:
    """The modules of a folder without a leading underscore, those with nothing public left out."""
    files = sorted(f for f in folder.glob("*.py") if not f.name.startswith("_"))
    return [file for file in files if _public_names(file)]


def _public_names(file: Path) -> list[str]:
    """Functions, classes and variables of a module without a leading underscore."""
    names = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def _page(title: str, folder: Path, modules: list[Path]) -> str:
    """Markdown of a reference page: the folder's docstring, then every module."""
    package = ".".join(folder.relative_to(SOURCE).parts)
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    blocks = [f"::: {package}.{file.stem}\n" for file in modules]
    return "\n".join([f"# {title}\n", f"`{package}`: {text}\n", *blocks])


def _reference() -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Titles from the tab down to the page, path and markdown of each reference page."""
    package = SOURCE / "cwx"
    files = [package / f"{name}.py" for name in ("notebook", "errors")]
    yield ("Notebooks", "general"), "reference/notebook.md", _page("Notebooks", package, files)
    functional = package / "functional"
    modules = {file.stem: file for file in _public_modules(functional)}
    listed = {name for names in TOPICS.values() for name in names}
    if missing := listed - modules.keys():
        raise PluginError(f"TOPICS of docs/site.py names {sorted(missing)}, not in cwx.functional")
    topics = {**TOPICS, "Common": [name for name in modules if name not in listed]}
    for topic, names in topics.items():
        slug = re.sub(r"\W+", "_", topic.lower()).strip("_")
        text = _page(topic, functional, [modules[name] for name in names])
        yield ("Functional", topic), f"reference/functional/{slug}.md", text
    for name, title in FOLDERS.items():
        top = package / name
        folders = [top, *sorted(f for f in top.rglob("*") if (f / "__init__.py").is_file())]
        for folder in folders:
            if files := _public_modules(folder):
                path = folder.relative_to(package).as_posix()
                below = " / ".join(folder.relative_to(top).parts)
                text = _page(f"{title}: {below}" if below else title, folder, files)
                yield (title, below or "general"), f"reference/{path}/index.md", text


def on_config(config: Any) -> Any:
    """Append the reference to the navigation, one group a folder."""
    groups: dict[str, list[dict[str, str]]] = {}
    for (group, title), path, _ in _reference():
        groups.setdefault(group, []).append({title: path})
    sections = [{group: pages} for group, pages in groups.items()]
    config.nav.append({"API reference": [{"Overview": "reference/README.md"}, *sections]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the reference pages and the pages from outside `docs/`."""
    overview = ["# API reference\n", "Generated from the docstrings of `src/cwx`.\n"]
    last = None
    for (group, title), path, text in _reference():
        if group != last:
            overview.append(f"\n## {group}\n")
            last = group
        overview.append(f"- [{title}]({path.removeprefix('reference/')})")
        files.append(File.generated(config, path, content=text))
    files.append(File.generated(config, "reference/README.md", content="\n".join(overview)))
    for path, source in OUTSIDE.items():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / source)))
    return files


# Not those with a scheme, such as `https:`.
_LINK = re.compile(r"\]\((?!\w+:)([^()\s#]+)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between files of the repository as links between pages of the site."""
    if page.file.abs_src_path is None:
        return markdown
    folder = Path(page.file.abs_src_path).parent
    pages = {(ROOT / source).resolve(): ROOT / "docs" / name for name, source in OUTSIDE.items()}
    # The folder that the page has in the site.
    here = (ROOT / "docs" / page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if target not in pages and folder == here:
            return match[0]
        moved = pages.get(target, target)
        return f"]({os.path.relpath(moved, here)}"

    return _LINK.sub(link, markdown)


_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, which browsers draw without a script."""

    def mathml(match: re.Match[str]) -> str:
        display = "inline" if match[1] == "span" else "block"
        return convert(html.unescape(match[2]).strip(), display=display)

    return _FORMULA.sub(mathml, content)


_DOCTEST = re.compile(r"^>>> .*\n(?:.+\n?)*", re.MULTILINE)
# `first, second: text`, with the lines of the text that are indented further.
_JOINT = re.compile(r"^( +)(\w+(?:,\s+\w+)+): (.*(?:\n\1 +.*)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Docstrings as Griffe expects them: fenced doctests, one entry for each argument."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _one_entry_each(_fence_doctests(obj.docstring.value))


def _fence_doctests(text: str) -> str:
    return _DOCTEST.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)


def _one_entry_each(text: str) -> str:
    """`first, second: text` as an entry of the same text for each name."""

    def entries(match: re.Match[str]) -> str:
        indent, names, description = match.groups()
        return "\n".join(f"{indent}{name}: {description}" for name in re.split(r",\s+", names))

    before, args, after = text.partition("\nArgs:\n")
    return before + args + _JOINT.sub(entries, after)
