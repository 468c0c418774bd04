"""What numbers say in words: numbers of a kind belong to one family, on one card or chart."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

# Judges and networks of a study (cwx.subject) in words.
NETWORKS = {
    "expert": "explained networks",
    "held-out": "networks never seen",
    "early": "early networks",
    "clean": "networks of clean images",
    "purified": "after purification",
    "refined": "refined networks",
}
SOURCES = {
    "real": "real images",
    "train": "training images",
    "mean": "mean images",
}


@dataclass(frozen=True)
class Entry:
    """One number of a family: its flat name, and what sets it apart from its siblings."""

    name: str
    label: str


@dataclass(frozen=True)
class Family:
    """Numbers of one kind.

    Attributes:
        share: whether they are shares in 0-1.
        better: ``higher``, ``lower``, or nothing where neither is better.
        entries: in the order that they are shown.
        beside: where the paper's figure of a name stands, if not under the name itself.
    """

    title: str
    meaning: str
    share: bool
    better: str
    entries: tuple[Entry, ...]
    beside: Callable[[str], str] = str


@dataclass(frozen=True)
class _Kind:
    """A pattern of names; its group ``of`` starts a family, its group ``label`` an entry.

    Attributes:
        label: the words of an entry, where it is neither a network nor a source.
        leave_out: what says nothing, such as a share of corrupted images of 0.
    """

    pattern: str
    title: str
    meaning: str
    label: Callable[[str], str] = str
    share: bool = True
    better: str = "higher"
    beside: Callable[[str], str] = str
    leave_out: Callable[[float], bool] = lambda _: False


def _size(text: str) -> str:
    size = float(text)
    return f"{100 * size:.3g} % of pixels" if size < 1 else f"ε = {size:.3g}/255"


def _powers_of_paper(name: str) -> str:
    return name.replace("power/", "power_whole/", 1)


_KINDS = (
    _Kind(
        r"robustness/(?P<label>[^/]+)/clean", "Accuracy",
        "Share of real test images that the networks recognise.",
    ),
    _Kind(
        r"fidelity/(?P<label>seen/)?ratio", "Fidelity ratio",
        "How training on the images differs from real training: "
        "0 is a perfect copy, 1 no better than standing still.",
        lambda seen: "networks it was fitted to" if seen else "a network never seen",
        share=False, better="lower",
    ),
    _Kind(
        r"discriminative/(?P<label>(?!.*-projected/)[^/]+)/(?P<of>expert|held-out)",
        "Recognised by {of}",
        "Share of the images that these networks take for their class.",
    ),
    _Kind(
        r"power/(?P<of>[^/]+)/(?P<label>[\d.]+)", "Predictive power of {of}",
        "How often other images are taken for the class once they carry the pattern, over clean "
        "accuracy; on images that were not searched on (the paper's on all).",
        _size, beside=_powers_of_paper,
    ),
    _Kind(
        r"backdoor/(?P<label>[^/]+)/success", "Attack success",
        "Share of test images with the trigger that are taken for its target.",
        better="lower",
    ),
    _Kind(
        r"backdoor/(?P<label>[^/]+)/accuracy", "Accuracy without trigger",
        "Share of clean test images that the networks recognise.",
    ),
    _Kind(
        r"detection/(?P<label>[^/]+)/recall", "Poisoned images found",
        "Share of the poisoned training images that are suspected along what each source reveals.",
    ),
    _Kind(
        r"detection/(?P<label>[^/]+)/precision", "Suspected rightly",
        "Share of the suspected training images that are poisoned.",
    ),
    _Kind(
        r"trigger/(?P<label>(?!.*-projected/)[^/]+)/target/correlation",
        "Trigger revealed",
        "Correlation of what sets the target class apart with the true trigger.",
        share=False,
    ),
    _Kind(
        r"robustness/(?P<of>expert|purified)/(?P<label>(?!clean)[^/]+)",
        "Accuracy under attack, {of}",
        "Share of attacked test images that the networks recognise.",
    ),
    _Kind(
        r"attention/(?P<of>[^/]+)/(?P<label>before|after|by_area)", "Attention on {of}'s patterns",
        "Share of Grad-CAM's attention that lies where the pattern is put.",
        lambda label: {"by_area": "share of the area"}.get(label, f"{label} it is there"),
        better="",
    ),
    _Kind(
        r"diversity/(?P<label>(?!.*-projected/)[^/]+)/correlation", "Likeness within a class",
        "Mean correlation between images of one class: lower is more varied.",
        share=False, better="lower",
    ),
    _Kind(
        r"transfer/(?P<of>[^/]+/[\d.]+)/(?P<label>[^/]+)", "Transfer of {of}",
        "Mean power on another network over that on the explained one.", share=False,
    ),
    _Kind(
        r"corruption/(?P<label>effective_rate)", "Corrupted training images",
        "Share of the training images that were changed.", lambda _: "effective rate",
        better="", leave_out=lambda value: value == 0,
    ),
)  # fmt: skip


def families(numbers: Mapping[str, float], titles: Mapping[str, str]) -> list[Family]:
    """What is known to mean something, the most telling first; the rest is left to tables.

    Args:
        numbers: by flat name.
        titles: of methods, for people.
    """
    words = NETWORKS | SOURCES | dict(titles)
    found: list[Family] = []
    for kind in _KINDS:
        by_title: dict[str, list[Entry]] = {}
        for name, value in numbers.items():
            match = re.fullmatch(kind.pattern, name)
            if match and not kind.leave_out(value):
                groups = match.groupdict()
                of, label = groups.get("of") or "", groups.get("label") or ""
                title = kind.title.format(of=words.get(of, of))
                entry = Entry(name, words.get(label) or kind.label(label))
                by_title.setdefault(title, []).append(entry)
        found += [
            Family(title, kind.meaning, kind.share, kind.better, tuple(entries), kind.beside)
            for title, entries in by_title.items()
        ]
    return found


def union(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """All names that any run measured, in the order of their first appearance."""
    names: dict[str, float] = {}
    for numbers in runs:
        for name, value in numbers.items():
            names.setdefault(name, value)
    return names
