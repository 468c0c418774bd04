"""Titles and meanings of the metrics of `cwx.evaluations.contributions`."""

from cwx.report.metric_catalogue import MetricPattern

ORDER_LABELS = {
    "greedy": "greedy",
    "contribution": "signed contribution",
    "difference": "prediction difference",
    "activation": "activation",
    "random": "random order",
}
_SCORES = {
    "contradiction": "contradiction of the evidence",
    "permuted": "contradiction, permuted classes of units",
    "gaussian": "Gaussian",
    "confidence": "1 − probability",
}
_IMAGES = "(?:test|adversarial)"
_ORDERS = "|".join(ORDER_LABELS)


def _order(label: str) -> str:
    """
    >>> _order("test/flip/random")
    'random order, test images'
    """
    images, _, order = label.split("/")
    return f"{ORDER_LABELS[order]}, {images} images"


def _logit(label: str) -> str:
    """
    >>> _logit("adversarial/zero/target")
    'target logit, adversarial images, zero ablation'
    """
    images, ablation, logit = label.split("/")
    return f"{logit} logit, {images} images, {ablation} ablation"


CONTRIBUTION_PATTERNS = (
    MetricPattern(
        rf"contributions/(?P<column>[^/]+)/auc/(?P<label>{'|'.join(_SCORES)})",
        "Adversarial against real images (AUROC)",
        "How well a score tells adversarial images from as many real ones: 1 is perfect, 0.5 is "
        "chance; below 0.5, adversarial images have the lower score. Contradiction: the units that "
        "raise the predicted logit respond to real images of other classes. Permuted classes: the "
        "same if each unit has the classes of another.",
        _SCORES.__getitem__, fraction=False, better="",
    ),
    MetricPattern(
        rf"contributions/(?P<column>[^/]+)/(?P<label>{_IMAGES}/flip/(?:{_ORDERS}))",
        "Units until the prediction flips",
        "Median number of units that are removed, one after another, until the network predicts "
        "another class. Greedy removal takes the unit whose loss lowers the margin most; a random "
        "order is the control.",
        _order, fraction=False, better="",
    ),
    MetricPattern(
        rf"contributions/(?P<column>[^/]+)/(?P<label>{_IMAGES}/deletion/(?:{_ORDERS}))",
        "Area under the deletion curve",
        "Mean probability of the predicted class while units are removed one after another: small "
        "if those that decide come first.",
        _order, fraction=False, better="",
    ),
    MetricPattern(
        rf"contributions/(?P<column>[^/]+)/(?P<label>{_IMAGES}/insertion/(?:{_ORDERS}))",
        "Area under the insertion curve",
        "Mean probability of the predicted class while more and more units are kept: large if "
        "those that decide come first.",
        _order, fraction=False, better="",
    ),
    MetricPattern(
        r"contributions/(?P<column>[^/]+)/(?P<label>"
        rf"{_IMAGES}/(?:zero|mean|resample)/(?:predicted|true|target))",
        "Sum of the contributions of all units to a logit",
        "Mean over images. A contribution is the logit with the unit minus the logit without it.",
        _logit, fraction=False, better="",
    ),
)  # fmt: skip
