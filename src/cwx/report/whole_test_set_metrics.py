"""Titles and meanings of the predictive power of searches that used all test images."""

from cwx.report.metric_catalogue import MetricPattern
from cwx.report.metric_labels import PATTERN_FRACTION, PERTURBATION_FRACTION, size_label

_ALL_IMAGES = (
    "Measured on all test images, as in the paper: the search used them all, and none are left to "
    "show how well the result generalises. Lower the method's setting searched for that."
)


def _outside_the_search(name: str) -> str:
    return name.replace("predictive_power/whole/", "predictive_power/power/", 1)


WHOLE_TEST_SET_PATTERNS = (
    MetricPattern(
        r"predictive_power/whole/(?P<column>[^/]+)/(?P<label>0\.\d+|gamma-[\d.]+)",
        "Predictive power of patterns on the images of their search",
        f"{PATTERN_FRACTION} {_ALL_IMAGES}", size_label, in_place_of=_outside_the_search,
    ),
    MetricPattern(
        r"predictive_power/whole/(?P<column>[^/]+)/(?P<label>[1-9][\d.]*)",
        "Predictive power of perturbations on the images of their search",
        f"{PERTURBATION_FRACTION} {_ALL_IMAGES}", size_label, in_place_of=_outside_the_search,
    ),
)  # fmt: skip
