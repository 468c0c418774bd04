"""Labels of networks, attacks and measured values in the pages."""

# Kinds of networks (cwx.training.subject) as row labels.
NETWORKS = {
    "expert": "explained experts",
    "held-out": "held-out experts",
    "early": "early experts",
    "clean": "experts trained on clean images",
    "purified": "experts after purification",
    "fine-tuned": "fine-tuned experts",
    "redrawn": "expert with re-drawn weights",
}
# The same as column heads.
COLUMN_NETWORKS = {
    "expert": "explained",
    "held-out": "held-out",
    "clean": "trained on clean",
    "purified": "purified",
}
SOURCES = {
    "real": "real images",
    "train": "training images",
    "mean": "mean images",
}
# Suffix of networks that the ensemble attack did not use (cwx.evaluations.adversarial).
_NOT_ATTACKED = "-unseen"
_ATTACKS = {"fgs": "FGS", "pgd": "PGD"}

# Rows of the metrics of cwx.evaluations.fidelity; its `real` is among SOURCES.
FIDELITY_LABELS = {
    "ratio": "held-out experts",
    "ratio/calibrated": "held-out experts, from the starts of those trained again",
    "seen/ratio": "fitted experts",
    "replica": "held-out experts, trained again",
} | {
    f"{prefix}{name}": f"{kind} experts{detail}"
    for prefix, kind in (("", "held-out"), ("seen/", "fitted"))
    for name, detail in (
        ("agreement", ""),
        ("agreement/start", ", at the start"),
        ("agreement/replica", ", trained again"),
        ("agreement/calibrated", ", from the starts of those trained again"),
        ("accuracy", ""),
        ("accuracy/start", ", at the start"),
        ("accuracy/expert", ", at the end"),
    )
}

# Columns of the metrics of cwx.evaluations.patterns.controls.
CONTROL_LABELS = {
    "pattern": "pattern",
    "equal_choice": "pattern, of as many canvases as the control searches",
    "random_masks": "random masks",
    "other_canvas": "canvas of another class",
    "no_pattern": "no pattern",
    "shuffled": "searched on canvases of another class",
    "redrawn": "re-drawn weights, less no pattern",
    "gain": "gain over the strongest control",
}

# Columns of the metrics of cwx.evaluations.patterns.cascade.
CASCADE_LABELS = {
    "iou": "IoU with the intact network",
    "correlation": "rank correlation",
    "correlation_visible": "the same where the canvas differs",
    "success": "success",
    "no_pattern": "without a pattern",
}

# Meanings of several metrics.
NEURON_LABELS = {
    "lc": "LC",
    "cs1": "CS₁ (true class)",
    "cs2": "CS₂ (target class)",
    "cs1_permuted": "CS₁, permuted classes",
    "cs2_permuted": "CS₂, permuted classes",
    "cs1_noise": "CS₁, noise of the same norm",
    "cs2_noise": "CS₂, noise of the same norm",
}
NEURON_MEANING = (
    "LC: semantic level and consistency of the classes of a neuron's top real images. CS: "
    "similarity between these classes and those of its top adversarial images, by true class "
    "(CS₁) or target class (CS₂). Permuted classes: the CS of a neuron that responds to neither. "
    "Noise: the CS of the same images with random noise instead of the attack."
)

PATTERN_FRACTION = (
    "PW: fraction of test images that are classified as the pattern's class once they carry the "
    "pattern, divided by clean accuracy."
)
PERTURBATION_FRACTION = (
    "Fraction of test images that are classified as the perturbation's class once it is added."
)
_OUTSIDE = "Measured on images outside the search set (the paper: on all test images)."
PATTERN_MEANING = f"{PATTERN_FRACTION} {_OUTSIDE}"
PERTURBATION_MEANING = f"{PERTURBATION_FRACTION} {_OUTSIDE}"


def network_label(name: str) -> str:
    """The row label of a kind of network; other networks go by their name.

    >>> network_label("expert"), network_label("expert-unseen"), network_label("vgg16")
    ('explained experts', 'explained experts, not attacked', 'vgg16')
    """
    kind = name.removesuffix(_NOT_ATTACKED)
    return NETWORKS.get(kind, kind) + (", not attacked" if kind != name else "")


def network_column(name: str) -> str:
    """The column head of a kind of network."""
    kind = name.removesuffix(_NOT_ATTACKED)
    return COLUMN_NETWORKS.get(kind, kind) + (", not attacked" if kind != name else "")


def attack_label(name: str) -> str:
    """
    >>> attack_label("fgs_1"), attack_label("pgd"), attack_label("my_own")
    ('FGS 1', 'PGD', 'my own')
    """
    first, *rest = name.split("_")
    return " ".join([_ATTACKS.get(first, first), *rest])


def top_k_label(suffix: str) -> str:
    return suffix.replace("/top", "top-") or "top-1"


def adversarial_top_k_label(name: str) -> str:
    return {
        "clean_top1": "clean, top-1",
        "clean_top5": "clean, top-5",
        "top1": "adversarial, top-1",
        "top5": "adversarial, top-5",
    }[name]


def evidence_label(name: str) -> str:
    images, evidence = name.split("/")
    return f"{evidence}, {images} images"


def tolerance_label(text: str) -> str:
    """``shift/2`` as words.

    >>> tolerance_label("jpeg/75")
    'JPEG quality 75'
    """
    kind, _, strength = text.partition("/")
    words = {
        "none": "exact",
        "shift": f"shift of {strength} pixels",
        "noise": f"noise of {strength}/255",
        "jpeg": f"JPEG quality {strength}",
    }
    return words[kind]


def layers_label(text: str) -> str:
    """
    >>> layers_label("0"), layers_label("1"), layers_label("3")
    ('as trained', '1 layer re-drawn', '3 layers re-drawn')
    """
    count = int(text)
    return f"{count} layer{'' if count == 1 else 's'} re-drawn" if count else "as trained"


def size_label(text: str) -> str:
    """
    >>> size_label("0.05"), size_label("gamma-0.9"), size_label("8")
    ('5 % of pixels', 'mask > 0.9', 'ε = 8/255')
    """
    if text.startswith("gamma-"):
        return f"mask > {text.removeprefix('gamma-')}"
    size = float(text)
    return f"{100 * size:.3g} % of pixels" if size < 1 else f"ε = {size:.3g}/255"
