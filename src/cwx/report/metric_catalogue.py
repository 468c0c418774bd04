"""Kinds of numbers in words: which flat names belong together, and what they mean."""

from collections.abc import Callable
from dataclasses import dataclass

# Judges and networks of a study (cwx.training.subject) in words.
NETWORKS = {
    "expert": "explained networks",
    "held-out": "networks never seen",
    "early": "early networks",
    "clean": "networks of clean images",
    "purified": "after purification",
    "fine-tuned": "fine-tuned networks",
}
# The same as headings of columns.
SHORT = {
    "expert": "explained",
    "held-out": "never seen",
    "clean": "of clean images",
    "purified": "purified",
}
SOURCES = {
    "real": "real images",
    "train": "training images",
    "mean": "mean images",
}
# Of networks like those that were attacked (cwx.evaluations.adversarial.adversarial_set).
_UNSEEN = "-unseen"
_ATTACKS = {"fgs": "FGS", "pgd": "PGD"}


@dataclass(frozen=True)
class Kind:
    """A pattern of names; its group ``of`` starts a family, its group ``label`` an entry, and its
    group ``column`` says what stands side by side.

    Attributes:
        label: the words of an entry, where it is neither a network nor a source.
        column: the words of a column, where it is no network.
        leave_out: what says nothing, such as a share of corrupted images of 0.
        unless: how the names of another evaluation begin that says the same.
    """

    pattern: str
    title: str
    meaning: str
    label: Callable[[str], str] = str
    column: Callable[[str], str] = str
    fraction: bool = True
    better: str = "higher"
    beside: Callable[[str], str] = str
    leave_out: Callable[[float], bool] = lambda _: False
    unless: str = ""


def network(name: str) -> str:
    """Networks of a evaluation network as they are called among other words; others by their name.

    >>> network("expert"), network("expert-unseen"), network("vgg16")
    ('explained networks', 'explained networks, not attacked', 'vgg16')
    """
    known = name.removesuffix(_UNSEEN)
    return NETWORKS.get(known, known) + (", not attacked" if known != name else "")


def column(name: str) -> str:
    """The same above a column."""
    known = name.removesuffix(_UNSEEN)
    return SHORT.get(known, known) + (", not attacked" if known != name else "")


def attack(name: str) -> str:
    """
    >>> attack("fgs_1"), attack("pgd"), attack("my_own")
    ('FGS 1', 'PGD', 'my own')
    """
    first, *rest = name.split("_")
    return " ".join([_ATTACKS.get(first, first), *rest])


def _top(name: str) -> str:
    return {"clean_top1": "real, top 1", "clean_top5": "real, top 5", "top1": "adversarial, top 1",
            "top5": "adversarial, top 5"}[name]  # fmt: skip


def _evidence(name: str) -> str:
    images, evidence = name.split("/")
    return f"{evidence}, {images} images"


def _size(text: str) -> str:
    size = float(text)
    return f"{100 * size:.3g} % of pixels" if size < 1 else f"ε = {size:.3g}/255"


def _powers_of_paper(name: str) -> str:
    return name.replace("power/", "power_whole/", 1)


_SIMILAR = {
    "lc": "LC",
    "cs1": "CS₁, what it shows",
    "cs2": "CS₂, the target",
}
_RESPONDED = (
    "LC: how far the real images that excite a neuron most are of one kind. CS: how like their "
    "classes those of its adversarial images are, as they look (CS₁) and as they are meant (CS₂)."
)

_POWER = (
    "How often other images are taken for the class once they carry the pattern, over clean "
    "accuracy; on images that were not searched on (the paper's on all)."
)

KINDS = (
    Kind(
        r"accuracy/(?P<label>[^/]+)/clean(?P<column>|/top\d+)", "Accuracy",
        "Share of real test images that the networks recognise.",
        column=lambda top: top.replace("/top", "top ") or "top 1",
    ),
    Kind(
        r"adversarial_set/(?P<label>[^/]+)/(?P<column>(?:clean_)?top[15])",
        "Accuracy on the adversarial images",
        "Share of real test images, and of the study’s adversarial images, that are taken for what "
        "they show.",
        column=_top,
    ),
    Kind(
        r"adversarial_set/(?P<label>[^/]+)/success", "Taken for the target",
        "Share of the adversarial images that are taken for what they were made for.",
        better="lower",
    ),
    Kind(
        r"adversary/success/(?P<label>[^/]+)", "Attack of the ensemble",
        "Share of the adversarial images that the attacked network takes for their targets.",
        better="", unless="adversarial/",
    ),
    Kind(
        r"fidelity/(?P<label>seen/)?ratio", "Fidelity ratio",
        "How training on the images differs from real training: "
        "0 is a perfect copy, 1 no better than standing still.",
        lambda seen: "networks it was fitted to" if seen else "a network never seen",
        fraction=False, better="lower",
    ),
    Kind(
        r"discriminative/(?P<label>(?!.*-projected/)[^/]+)/(?P<column>[^/]+)",
        "Recognised as its class",
        "Share of the images that these networks take for their class.",
    ),
    Kind(
        r"predictive_power/power/(?P<column>[^/]+)/(?P<label>0\.\d+)", "Predictive power of patterns",
        _POWER, _size, beside=_powers_of_paper,
    ),
    Kind(
        r"predictive_power/power/(?P<column>[^/]+)/(?P<label>[1-9][\d.]*)", "Predictive power of perturbations",
        _POWER, _size, beside=_powers_of_paper,
    ),
    Kind(
        r"accuracy/(?P<column>[^/]+)/(?P<label>(?!clean)[^/]+)",
        "Accuracy under attack",
        "Share of attacked test images that the networks recognise; each meets its own attack.",
        attack,
    ),
    Kind(
        r"accuracy/(?P<column>[^/]+)/(?P<label>(?!clean)[^/]+)/top(?P<of>\d+)",
        "Top-{of} accuracy under attack",
        "Share of attacked test images whose class is among the first answers.",
        attack,
    ),
    Kind(
        r"neurons/(?P<column>[^/]+)/(?P<label>lc|cs1|cs2)", "What neurons respond to",
        _RESPONDED, _SIMILAR.__getitem__, fraction=False, better="",
    ),
    Kind(
        r"neurons/(?P<column>[^/]+)/high/(?P<label>lc|cs1|cs2)", "Neurons of the highest LC",
        _RESPONDED, _SIMILAR.__getitem__, fraction=False, better="",
    ),
    Kind(
        r"representations/(?P<column>[^/]+)/(?P<label>r[12])",
        "Representations of adversarial images",
        "r₁: distance from real images of what they show, 1 where the attack moves nothing. r₂: "
        "distance from those of the target, below 1 where the attack comes nearer.",
        lambda name: "r₁, what they show" if name == "r1" else "r₂, the target",
        fraction=False, better="",
    ),
    Kind(
        r"adversarial_detection/(?P<label>[^/]+)/auc", "AdversarialSet images told apart",
        "Area under the ROC curve: 1 where all are outliers, 0.5 where none can be told.",
        fraction=False, better="",
    ),
    Kind(
        r"attack_success/(?P<label>[^/]+)/success", "Attack success",
        "Share of test images with the trigger that are taken for its target.",
        better="lower",
    ),
    Kind(
        r"attack_success/(?P<label>[^/]+)/accuracy", "Accuracy without trigger",
        "Share of clean test images that the networks recognise.",
    ),
    Kind(
        r"poison_detection/(?P<label>[^/]+)/recall", "Poisoned images found",
        "Share of the poisoned training images that are suspected along what each source reveals.",
    ),
    Kind(
        r"poison_detection/(?P<label>[^/]+)/precision", "Suspected rightly",
        "Share of the suspected training images that are poisoned.",
    ),
    Kind(
        r"revealed_trigger/(?P<label>(?!.*-projected/)[^/]+)/target/correlation",
        "Trigger revealed",
        "Correlation of what sets the target class apart with the true trigger.",
        fraction=False,
    ),
    Kind(
        r"attention/(?P<of>[^/]+)/(?P<label>before|after|by_area)", "Attention on {of}'s patterns",
        "Share of Grad-CAM's attention that lies where the pattern is put.",
        lambda label: {"by_area": "share of the area"}.get(label, f"{label} it is there"),
        better="",
    ),
    Kind(
        r"diversity/(?P<label>(?!.*-projected/)[^/]+)/correlation", "Likeness within a class",
        "Mean correlation between images of one class: lower is more varied.",
        fraction=False, better="lower",
    ),
    Kind(
        r"predictive_power/transfer/(?P<of>[^/]+/[\d.]+)/(?P<label>[^/]+)", "Transfer of {of}",
        "Mean power on another network over that on the explained one.", fraction=False,
    ),
    Kind(
        r"traces/(?P<column>[^/]+)/(?P<label>(?:test|adversarial)/(?:consistent|contradictory))",
        "Evidence for single predictions",
        "Share of the traced predictions whose most decisive neurons all speak for them "
        "(consistent), or one of them against (contradictory).",
        _evidence, better="",
    ),
    Kind(
        r"construction/(?P<of>(?!moved)[^/]+)/(?P<label>start|made|rounded)",
        "Constructed images: {of}",
        "At the start, as they were made, and as they are kept, in bytes.",
        fraction=False, better="",
    ),
    Kind(
        r"corruption/(?P<label>effective_rate)", "Corrupted training images",
        "Share of the training images that were changed.", lambda _: "effective rate",
        better="", leave_out=lambda value: value == 0,
    ),
    Kind(
        r"purification/(?P<label>left_out)", "Left out by purification",
        "Share of the training images that were suspected.", lambda _: "of all", better="",
    ),
)  # fmt: skip
