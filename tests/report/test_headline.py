"""The sentence at the top of a run's page."""

from types import SimpleNamespace

import pytest

from cwx.report.headline import headline
from cwx.storage.csv_files import CsvTable

CONTROLS = {
    "pattern_controls/iscp/0.05/pattern": 0.3,
    "pattern_controls/iscp/0.05/random_masks": 0.02,
    "pattern_controls/iscp/0.2/pattern": 0.74,
    "pattern_controls/iscp/0.2/random_masks": 0.11,
    "pattern_controls/iscp/0.2/no_pattern": 0.01,
    "pattern_controls/iscp/0.2/redrawn": 0.0512,
    "pattern_controls/iscp/0.2/shuffled": 0.4,
    "pattern_controls/iscp/0.2/gain": 0.29,
    "pattern_controls/iscp/0.2/pattern/class/0": 0.8,
}
TITLES = {"distill": "CWX", "iscp": "ISCP"}


def text(table=None, **metrics):
    values = {name: value for part in metrics.values() for name, value in part.items()}
    tables = {"verdict": CsvTable([*table], [table])} if table else {}
    return headline(SimpleNamespace(metrics=values, method_titles=TITLES, tables=lambda: tables))


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (
            CONTROLS,
            [
                "20 % pattern",
                "74 %",
                "random masks of that size 11 %",
                "class 40 %",
                "weights 5.1 % more there than no pattern",
                "each class, 29 % remain",
            ],
        ),
        (
            CONTROLS | {"pattern_controls/iscp/0.2/equal_choice": 0.61},
            ["class 40 % (on as many of its own canvases: 61 %)"],
        ),
        ({"fidelity/ratio": 0.45, "fidelity/replica": 0.13}, ["0.45", "held-out", "0.13"]),
        (
            {"fidelity/ratio": 0.45, "fidelity/replica": 0.1, "fidelity/ratio/calibrated": 0.4},
            ["trained again ends at 0.10 (from the same starts, the images at 0.40)"],
        ),
        ({"fidelity/seen/ratio": 0.2}, ["0.20", "the expert"]),
        (
            {
                "attack_success/expert/success": 0.98,
                "revealed_trigger/distill/target/correlation": 0.7,
                "revealed_trigger/distill-projected/target/correlation": 0.9,
            },
            ["98 %", "CWX", "0.70"],
        ),
        (
            {
                "attack_success/expert/success": 0.98,
                "revealed_trigger/distill/target/correlation": 0.7,
                "revealed_trigger/distill/target/success": 0.6,
                "revealed_trigger/distill/others/success": 0.04,
                "revealed_trigger/distill-projected/target/success": 0.7,
                "revealed_trigger/activation/target/success": 0.5,
                "revealed_trigger/mean/target/success": 1.0,
            },
            ["98 %", "CWX reveals of it sends 60 %", "another class 4 %"],
        ),
        (
            {
                "predictive_power/power/iscp/0.05": 0.2,
                "predictive_power/power/iscp/0.1": 0.5,
                "predictive_power/power/universal/8": 0.9,
            },
            ["10 % patterns of ISCP", "0.50"],
        ),
        (
            {"predictive_power/whole/iscp/0.05": 0.2, "predictive_power/whole/universal/8": 0.9},
            ["5 % patterns of ISCP", "0.20 on the images of their search."],
        ),
        ({"adversarial_set/expert/success": 0.4}, ["40 %"]),
        ({"neurons/expert/high/lc": 5.0, "neurons/expert/lc": 2.0}, ["5.00", "2.00"]),
        ({"accuracy/expert/clean": 0.612}, ["61 % of the test images"]),
        ({"accuracy/expert/clean": 0.5} | CONTROLS, ["74 %", "50 % of the test images"]),
    ],
)
def test_the_main_result_is_told_with_its_control(metrics, words):
    sentence = text(metrics=metrics)
    assert all(word in sentence for word in words), sentence
    assert sentence.endswith(".")


def test_without_metrics_there_is_no_sentence():
    assert text() == ""
    assert text(metrics={"my/own": 1.0}) == ""


def test_a_verdict_comes_first_and_tells_what_the_trigger_does_elsewhere():
    sentence = text(
        {
            "verdict": "suspicious",
            "trigger": "universal perturbation within 8 of 255",
            "sentence": "Suspicious: class dog (p = 0.025).",
        },
        metrics=CONTROLS
        | {
            "verdict/suspicious": 1,
            "verdict/trigger/success": 0.97,
            "verdict/trigger/bank": 0.02,
            "accuracy/expert/clean": 0.6,
        },
    )
    assert sentence == (
        "Suspicious: class dog (p = 0.025). The universal perturbation within 8 of 255 sends "
        "97 % of other images to the class; on clean networks 2 %. The network classifies 60 % of "
        "the test images correctly."
    )


def test_a_verdict_without_suspicion_names_no_trigger():
    sentence = text(
        {
            "verdict": "nothing found",
            "trigger": "recovered trigger",
            "sentence": "Nothing found (p = 0.4).",
        },
        metrics={"verdict/suspicious": 0, "verdict/trigger/success": 0.97},
    )
    assert sentence == "Nothing found (p = 0.4)."
