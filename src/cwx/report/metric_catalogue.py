"""Titles and meanings of the metrics that studies write, by patterns of their flat names."""

from collections.abc import Callable
from dataclasses import dataclass

from cwx.report.metric_labels import (
    CASCADE_LABELS,
    CONTROL_LABELS,
    FIDELITY_LABELS,
    NEURON_LABELS,
    NEURON_MEANING,
    PATTERN_MEANING,
    PERTURBATION_MEANING,
    adversarial_top_k_label,
    attack_label,
    evidence_label,
    layers_label,
    size_label,
    tolerance_label,
    top_k_label,
)
from cwx.storage.continued_training import CONTINUED


@dataclass(frozen=True)
class MetricPattern:
    """A pattern of metric names, and how the metrics that match it are presented.

    The named groups of the regular expression: ``of`` goes into the title, so that each value of
    it makes a metric group of its own; ``label`` is the row, ``column`` the column.

    Attributes:
        label: turns the ``label`` group into text, if it is neither a network nor a source.
        column: turns the ``column`` group into text, if it is not a network.
        fraction: whether the values are fractions in 0-1, shown in percent.
        better: ``higher``, ``lower``, or empty if neither is better.
        paper_name: the name under which a paper's value stands, from the metric's name.
        hidden: whether a value is left out, such as a corrupted fraction of 0.
        unless: a name prefix of another evaluation that measures the same.
        in_place_of: from a metric's name that of the metric that is shown instead where there is
            one.
    """

    pattern: str
    title: str
    meaning: str
    label: Callable[[str], str] = str
    column: Callable[[str], str] = str
    fraction: bool = True
    better: str = "higher"
    paper_name: Callable[[str], str] = str
    hidden: Callable[[float], bool] = lambda _: False
    unless: str = ""
    in_place_of: Callable[[str], str] = lambda _: ""


def _whole_test_set(name: str) -> str:
    return name.replace("predictive_power/power/", "predictive_power/whole/", 1)


_TARGET = {"target": "target class", "others": "other classes"}
_DETECTORS = {"clustering": "activation clustering", "spectral": "spectral signatures"}
_CONSTRUCTION = {"start": "start", "made": "optimised", "rounded": "rounded to bytes"}

METRIC_PATTERNS = (
    MetricPattern(
        r"accuracy/(?P<label>[^/]+)/clean(?P<column>|/top\d+)", "Test accuracy",
        "Fraction of clean test images that are classified correctly.", column=top_k_label,
    ),
    MetricPattern(
        r"adversarial_set/(?P<label>[^/]+)/(?P<column>(?:clean_)?top[15])",
        "Accuracy on the adversarial set",
        "Fraction of clean test images, and of the adversarial images, that are classified as "
        "their true class.",
        column=adversarial_top_k_label,
    ),
    MetricPattern(
        r"adversarial_set/(?P<label>[^/]+)/success", "Targeted attack success rate",
        "Fraction of the adversarial images that are classified as the attack's target class.",
        better="lower",
    ),
    MetricPattern(
        r"adversary/success/(?P<label>[^/]+)", "Ensemble attack success rate",
        "Fraction of the adversarial images that each attacked network classifies as the target "
        "class.",
        better="", unless="adversarial_set/",
    ),
    MetricPattern(
        r"fidelity/(?P<label>(?:seen/)?ratio|ratio/calibrated|real|replica)", "Fidelity ratio",
        "‖θₖ₊ₙ − θ_M‖² / ‖θₖ − θₖ₊ₙ‖²: distance between the expert and a network trained on the "
        "explanations, relative to the expert's own step. 0: the explanations reproduce the "
        "expert's training; 1: no better than no training. Beside it the ratio of as many steps on "
        "real images, and that of the expert trained again with other batches: the noise of the "
        "training itself. These two are measured from some of the starts, with that of the "
        "explanations from the same starts beside them.",
        FIDELITY_LABELS.__getitem__, fraction=False, better="lower",
    ),
    MetricPattern(
        r"fidelity/(?P<label>(?:seen/)?agreement(?:/start|/replica|/calibrated)?)",
        "Agreement of predictions with the expert",
        "Fraction of the test images of which the network trained on the explanations, and the "
        "expert at the end of the segment, predict the same class; beside it that of the network "
        "at the start of the segment, and of the expert trained again with other batches.",
        FIDELITY_LABELS.__getitem__,
    ),
    MetricPattern(
        r"fidelity/(?P<label>(?:seen/)?accuracy(?:/start|/expert)?)",
        "Accuracy of networks trained on the explanations",
        "Fraction of the test images that a network classifies correctly after training on the "
        "explanations from a state of an expert; beside it that of this state, and of the expert.",
        FIDELITY_LABELS.__getitem__,
    ),
    MetricPattern(
        r"from_scratch/(?P<label>[^/]+)", "Accuracy of new networks trained on the images alone",
        "Fraction of the test images that networks with new random weights classify correctly "
        "after training on the explanations alone, or on as many real training images.",
    ),
    MetricPattern(
        r"discriminative/(?P<label>(?!.*-projected/)[^/]+)/(?P<column>[^/]+)",
        "Accuracy on the explanations",
        "Fraction of the images that these networks classify as the images' class.",
    ),
    MetricPattern(
        r"pattern_controls/(?P<of>[^/]+)/(?P<label>0\.\d+)/(?P<column>pattern|equal_choice|random_masks|other_canvas|no_pattern|shuffled|redrawn|gain)",
        "Success of {of} patterns, and controls",
        "Fraction of the test images of other classes that are classified as the pattern's class. "
        "Random masks have the pattern's size and canvas; other canvas: the pattern's mask on "
        "canvases of other classes; searched on canvases of another class: the same search for "
        "the class; re-drawn: the same search on the network with permuted weights, less the "
        "success without a pattern there. Equal choice: the pattern that is chosen among as many "
        "canvases as these two searches have, as their patterns are. Gain: the success less that "
        "of the strongest control on the same network, the mean over classes.",
        size_label, CONTROL_LABELS.__getitem__,
    ),
    MetricPattern(
        r"pattern_cascade/(?P<of>[^/]+)/(?P<label>\d+)/(?P<column>iou|correlation(?:_visible)?|success|no_pattern)",
        "Patterns of {of} on re-drawn weights, layer by layer",
        "Overlap (IoU) and rank correlation of the masks with those of the network as it was "
        "trained (also on the half of the pixels where the canvas differs most from images), and "
        "the fraction of other images that the new patterns send to their class. "
        "Masks that stay alike do not depend on what the network learned.",
        layers_label, CASCADE_LABELS.__getitem__, fraction=False, better="",
    ),
    MetricPattern(
        r"pattern_tolerance/(?P<column>[^/]+)/(?P<label>none|(?:shift|noise|jpeg)/[\d.]+)",
        "Success of patterns that are applied inexactly",
        "Fraction of the test images of other classes that are classified as the pattern's class "
        "after a shift of the pattern, or after noise or compression of the image that carries it.",
        tolerance_label,
    ),
    MetricPattern(
        r"predictive_power/power/(?P<column>[^/]+)/(?P<label>0\.\d+|gamma-[\d.]+)",
        "Predictive power of patterns",
        PATTERN_MEANING, size_label, paper_name=_whole_test_set,
    ),
    MetricPattern(
        r"predictive_power/area/(?P<column>[^/]+)/(?P<label>gamma-[\d.]+)",
        "Size of patterns above a threshold",
        "Fraction of the image's pixels whose mask is above the threshold γ: mean over the best "
        "patterns of the classes.",
        size_label, better="",
    ),
    MetricPattern(
        r"predictive_power/power/(?P<column>[^/]+)/(?P<label>[1-9][\d.]*)",
        "Predictive power of perturbations",
        PERTURBATION_MEANING, size_label, paper_name=_whole_test_set,
    ),
    MetricPattern(
        r"accuracy/(?P<column>[^/]+)/(?P<label>(?!clean)[^/]+)",
        "Accuracy under attack",
        "Fraction of attacked test images that are classified correctly. The attack is computed "
        "for each network.",
        attack_label,
    ),
    MetricPattern(
        r"accuracy/(?P<column>[^/]+)/(?P<label>(?!clean)[^/]+)/top(?P<of>\d+)",
        "Top-{of} accuracy under attack",
        "Fraction of attacked test images whose class is among the k highest logits.",
        attack_label,
    ),
    MetricPattern(
        rf"neurons/(?P<column>[^/]+)/(?P<label>{'|'.join(NEURON_LABELS)})",
        "LC and CS, all neurons",
        NEURON_MEANING, NEURON_LABELS.__getitem__, fraction=False, better="",
    ),
    MetricPattern(
        rf"neurons/(?P<column>[^/]+)/high/(?P<label>{'|'.join(NEURON_LABELS)})",
        "LC and CS, neurons of highest LC",
        NEURON_MEANING, NEURON_LABELS.__getitem__, fraction=False, better="",
    ),
    MetricPattern(
        r"representations/(?P<column>[^/]+)/(?P<label>r[12])",
        "Representation distances of adversarial images",
        "r₁: relative distance to real images of the true class; 1 if the attack does not change "
        "the representation. r₂: relative distance to real images of the target class; below 1 if "
        "the attack moves it closer to that class.",
        lambda name: "r₁ (true class)" if name == "r1" else "r₂ (target class)",
        fraction=False, better="",
    ),
    MetricPattern(
        r"adversarial_detection/(?P<label>[^/]+)/auc", "Adversarial detection (AUROC)",
        "Area under the ROC curve of the detector: 1 is perfect, 0.5 is chance.",
        fraction=False, better="",
    ),
    MetricPattern(
        r"attack_success/(?P<label>[^/]+)/success", "Backdoor attack success rate",
        "Fraction of test images that are classified as their target class once they carry the "
        "trigger.",
        better="lower",
    ),
    MetricPattern(
        r"attack_success/(?P<label>[^/]+)/accuracy", "Clean accuracy of backdoored networks",
        "Fraction of test images without the trigger that are classified correctly.",
    ),
    MetricPattern(
        r"poison_detection/(?P<label>[^/]+)/recall", "Poison detection: recall",
        "Fraction of the poisoned training images that are suspected, by source of the images "
        "that reveal the trigger.",
    ),
    MetricPattern(
        r"poison_detection/(?P<label>[^/]+)/precision", "Poison detection: precision",
        "Fraction of the suspected training images that are poisoned.",
    ),
    MetricPattern(
        r"poisoned_groups/(?P<label>clustering|spectral)/auroc",
        "Poisoned images among the training images of their class: AUROC",
        "How well the groups of a class's training images separate the poisoned ones: activation "
        "clustering, and spectral signatures. 0.5 is chance.",
        _DETECTORS.__getitem__,
        fraction=False,
    ),
    MetricPattern(
        r"revealed_trigger/(?P<label>(?!.*-projected/)[^/]+)/target/correlation",
        "Trigger correlation",
        "Correlation between the revealed trigger and the true trigger.",
        fraction=False,
    ),
    MetricPattern(
        r"attention/(?P<of>[^/]+)/(?P<label>before|after|by_area)",
        "Grad-CAM attention on {of} patterns",
        "Fraction of the Grad-CAM map that lies inside the pattern's mask, before and after the "
        "pattern is applied.",
        lambda label: {"by_area": "mask area"}.get(label, label),
        better="",
    ),
    MetricPattern(
        r"diversity/(?P<label>(?!.*-projected/)[^/]+)/correlation", "Within-class correlation",
        "Mean Pearson correlation over pairs of images of one class. Lower is more diverse.",
        fraction=False, better="lower",
    ),
    MetricPattern(
        r"predictive_power/transfer/(?P<of>[^/]+/(?:gamma-)?[\d.]+)/(?P<label>[^/]+)",
        "Transfer of {of}",
        "Mean predictive power on another network, divided by that on the explained network.",
        fraction=False,
    ),
    MetricPattern(
        r"predictive_power/power/(?P<of>[^/]+/(?:gamma-)?[\d.]+)/(?P<label>target|others)",
        "Backdoor target, predictive power of {of}",
        "Predictive power of the target class of the backdoor, and its mean over other classes.",
        _TARGET.__getitem__, fraction=False, better="", paper_name=_whole_test_set,
    ),
    MetricPattern(
        r"predictive_power/transfer/(?P<of>[^/]+/(?:gamma-)?[\d.]+/[^/]+)/(?P<label>target|others)",
        "Backdoor target, transfer of {of}",
        "Transfer to this network of the target class of the backdoor, and of other classes.",
        _TARGET.__getitem__, fraction=False, better="",
    ),
    MetricPattern(
        r"traces/(?P<column>[^/]+)/(?P<label>(?:test|adversarial)/(?:consistent|contradictory))",
        "Evidence for predictions",
        "Fraction of the traced predictions whose most important neurons all support them "
        "(consistent), or of which at least one contradicts them (contradictory).",
        evidence_label, better="",
    ),
    MetricPattern(
        r"dataset_construction/(?P<of>(?!moved)[^/]+)/(?P<label>start|made|rounded)",
        "Dataset construction: {of}",
        "Mean over the constructed images at the start, after optimisation, and rounded to bytes.",
        _CONSTRUCTION.__getitem__, fraction=False, better="",
    ),
    MetricPattern(
        r"corruption/(?P<label>effective_rate|changed_\w+)", "Corrupted training images",
        "Fraction of the training images that differ from the original data.",
        lambda label: label.replace("_", " "),
        better="", hidden=lambda value: value == 0,
    ),
    MetricPattern(
        r"continued_training/(?P<label>epochs)", "Continued training",
        f"Trajectories: {CONTINUED}.",
        lambda _: "epochs", fraction=False, better="",
    ),
    MetricPattern(
        r"purification/(?P<label>left_out)", "Images removed by purification",
        "Fraction of the training images that were suspected and removed.",
        lambda _: "of all training images", better="",
    ),
)  # fmt: skip
