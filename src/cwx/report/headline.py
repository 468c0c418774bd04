"""The sentence at the top of a run's page: its main result, with the control beside it."""

import re
from collections.abc import Mapping

from cwx.report.image_sources import REAL
from cwx.report.run import RunContents

Values = Mapping[str, float]


def headline(run: RunContents) -> str:
    """The main result of a run in one or two sentences; empty if nothing was measured.

    The first result that the run has, of: the verdict, patterns with controls, a backdoor, the
    fidelity of synthetic images, patterns, adversarial images, neurons; then the accuracy.
    """
    values, titles = run.metrics, run.method_titles
    results = (
        _verdict(run),
        _controls(values),
        _backdoor(values, titles),
        _fidelity(values),
        _patterns(values, titles),
        _adversarial(values),
        _neurons(values),
    )
    main = next((text for text in results if text), "")
    return " ".join(text for text in (main, _accuracy(values)) if text)


def _verdict(run: RunContents) -> str:
    table = run.tables().get("verdict")
    if table is None or "sentence" not in table.columns:
        return ""
    text = table.rows[0]["sentence"]
    values = run.metrics
    success = values.get("verdict/trigger/success")
    if values.get("verdict/suspicious") == 1 and success is not None:
        kind = table.rows[0]["trigger"]
        text += f" The {kind} sends {_percent(success)} of other images to the class"
        bank = values.get("verdict/trigger/bank")
        text += "." if bank is None else f"; on clean networks {_percent(bank)}."
    return text


def _controls(values: Values) -> str:
    names = [name for name in values if name.startswith("pattern_controls/")]
    sizes = sorted(
        {tuple(name.split("/")[1:3]) for name in names if name.endswith("/random_masks")},
        key=lambda pair: float(pair[1]),
    )
    if not sizes:
        return ""
    source, size = sizes[-1]
    prefix = f"pattern_controls/{source}/{size}"
    text = (
        f"The {_percent(float(size))} pattern of a class sends "
        f"{_percent(values[f'{prefix}/pattern'])} of other images to it; random masks of that size "
        f"{_percent(values[f'{prefix}/random_masks'])}"
    )
    shuffled = values.get(f"{prefix}/shuffled")
    if shuffled is not None:
        text += f"; the search on canvases of another class {_percent(shuffled)}"
        equal = values.get(f"{prefix}/equal_choice", values[f"{prefix}/pattern"])
        if _percent(equal) != _percent(values[f"{prefix}/pattern"]):
            text += f" (on as many of its own canvases: {_percent(equal)})"
    redrawn = values.get(f"{prefix}/redrawn")
    if redrawn is not None:
        text += (
            f"; patterns of the network with re-drawn weights {_percent(redrawn)} more there than "
            "no pattern"
        )
    gain = values.get(f"{prefix}/gain")
    if gain is not None:
        text += f". Less the strongest control of each class, {_percent(gain)} remain"
    return text + "."


def _backdoor(values: Values, titles: Mapping[str, str]) -> str:
    success = values.get("attack_success/expert/success")
    if success is None:
        return ""
    text = f"The trigger sends {_percent(success)} of the test images to their target class"
    rates, correlations = (_revealed(values, score) for score in ("success", "correlation"))
    if rates:
        source = max(rates, key=lambda name: rates[name])
        text += (
            f"; what {titles.get(source, source)} reveals of it sends {_percent(rates[source])} "
            "there"
        )
        others = values.get(f"revealed_trigger/{source}/others/success")
        if others is not None:
            text += f", and what it shows of another class {_percent(others)} to that class"
    elif correlations:
        source = max(correlations, key=lambda name: correlations[name])
        text += (
            f"; the images of {titles.get(source, source)} show it with a correlation of "
            f"{correlations[source]:.2f}"
        )
    return text + "."


def _revealed(values: Values, score: str) -> Values:
    """By method, a score of what it reveals of the trigger of the target class.

    Not of real images: training images with the trigger show it of themselves.
    """
    names = re.compile(rf"revealed_trigger/([^/]+)(?<!-projected)/target/{score}")
    matches = ((names.fullmatch(name), value) for name, value in values.items())
    return {match[1]: value for match, value in matches if match and match[1] not in REAL}


def _fidelity(values: Values) -> str:
    held_out = values.get("fidelity/ratio")
    ratio = values.get("fidelity/seen/ratio") if held_out is None else held_out
    if ratio is None:
        return ""
    kind = "a held-out expert" if held_out is not None else "the expert"
    text = (
        f"Training on the synthetic images ends at {ratio:.2f} of the squared distance that {kind} "
        "moves (0: the same training; 1: no better than no training)"
    )
    replica = values.get("fidelity/replica")
    if replica is not None:
        text += f"; the expert trained again ends at {replica:.2f}"
        same = values.get("fidelity/ratio/calibrated", ratio)
        if f"{same:.2f}" != f"{ratio:.2f}":
            text += f" (from the same starts, the images at {same:.2f})"
    return text + "."


def _patterns(values: Values, titles: Mapping[str, str]) -> str:
    powers, on = _mean_powers(values, "power"), ""
    if not powers:
        powers, on = _mean_powers(values, "whole"), " on the images of their search"
    if not powers:
        return ""
    size, source, power = max(powers)
    return (
        f"The {_percent(size)} patterns of {titles.get(source, source)} have a mean predictive "
        f"power of {power:.2f}{on}."
    )


def _mean_powers(values: Values, images: str) -> list[tuple[float, str, float]]:
    """The size, the source and the mean power of patterns on these images."""
    return [
        (float(parts[3]), parts[2], value)
        for name, value in values.items()
        if (parts := name.split("/"))[:2] == ["predictive_power", images] and len(parts) == 4
        and parts[3].startswith("0.")
    ]  # fmt: skip


def _adversarial(values: Values) -> str:
    success = values.get("adversarial_set/expert/success")
    if success is None:
        return ""
    return f"{_percent(success)} of the adversarial images are classified as the attack's target."


def _neurons(values: Values) -> str:
    levels = values.get("neurons/expert/high/lc"), values.get("neurons/expert/lc")
    if levels[0] is None or levels[1] is None:
        return ""
    return (
        f"The neurons of highest semantic level have a mean LC of {levels[0]:.2f}; all neurons "
        f"{levels[1]:.2f}."
    )


def _accuracy(values: Values) -> str:
    accuracy = values.get("accuracy/expert/clean", values.get("attack_success/expert/accuracy"))
    if accuracy is None:
        return ""
    return f"The network classifies {_percent(accuracy)} of the test images correctly."


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %" if abs(value) < 0.1 else f"{100 * value:.0f} %"
