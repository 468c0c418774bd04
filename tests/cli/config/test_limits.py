"""Every number of every part has limits, which are checked before anything is trained."""

import ast
import math
import re
from functools import cache

import pytest
import yaml
from support.configurations import CONF

from cwx.cli.config.annotations import alternatives, declared_limits, type_name, type_text
from cwx.cli.config.limits import LARGEST, unmet_limits
from cwx.cli.config.set_by_study import why_not_settable
from cwx.cli.config.signatures import UnknownTargetError, signature
from cwx.cli.config.validate import check
from cwx.errors import UserError

# The C loader is ten times as fast, but not available everywhere.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Settings that the study passes to a part, by key, in any place of a part that it builds.
PASSED = {
    *("in_channels", "image_size", "num_classes", "subject", "seed", "stage", "networks"),
    *("data", "seeds", "stages", "params", "channels", "stride", "target", "count", "__"),
}
# The values that no setting takes, unless the rule below says so.
VALUES = {
    "zero": 0,
    "minus one": -1,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "a float of 1e12": 1e12,
    "an integer of 1e12": 10**12,
    "an integer of 400 digits": 10**400,
    "a half": 0.5,
    "a boolean": True,
    "text": "x",
    "text of infinity": "1e400",
    "nothing": [],
    "a list of NaN": [math.nan],
    "a list of 400 digits": [10**400],
}
# Parts that take these values, by the last name of their setting. Zero epochs of a start, noise of
# standard deviation 0, a weight of 0 and no attack (epsilon 0) are meaningful; zero steps are not.
ZERO = {
    *("seed", "rate", "mean", "start_min", "start_max", "epsilon", "step", "brightness"),
    *("saturation", "contrast", "shift", "degrees", "probability", "side", "margin", "ridge"),
    *("momentum", "initial_std", "blur_sigma", "alpha", "beta", "initial", "epochs", "weight"),
    *("epoch", "patience", "separation", "images", "target", "weight_decay", "cooldown", "output"),
    *("cover_rate", "row", "column", "accuracy_drop", "noise", "final_learning_rate", "replaced"),
    *("remaining_success", "workers", "flip", "repeated"),
    *(
        "calibrated",
        "spectral_exponent",
        "eta_min",
        "min_lr",
        "threshold",
        "log_every_n_steps",
        "num_sanity_val_steps",
    ),
}


def parts():
    """The settings of all parts: target, setting and annotation of each number."""
    targets = {}
    for file in sorted(CONF.rglob("*.yaml")):
        collect(yaml.load(file.read_text(), Loader=LOADER), targets)
    for target, keys in sorted(targets.items()):
        try:
            parameters = signature(target).parameters if signature(target) else {}
        except UnknownTargetError:
            continue
        for name, parameter in parameters.items():
            text = type_text(parameter.annotation) if parameter.annotation else ""
            numeric = re.search(r"\b(int|float)\b", text) and "Callable" not in text
            if numeric and (target.startswith("cwx.") or name in keys):
                yield target, name, parameter.annotation


def collect(content, targets):
    if isinstance(content, dict):
        if "?" not in str(target := content.get("_target_", "?")):
            targets.setdefault(target, set()).update(content)
        for item in content.values():
            collect(item, targets)
    elif isinstance(content, list):
        for item in content:
            collect(item, targets)


PARTS = [
    (target, name, annotation)
    for target, name, annotation in parts()
    if name not in PASSED - {"seed", "seeds", "target"}
    and not (name in ("seed", "seeds") and target.startswith("cwx.methods."))
    and not (name == "target" and "canvas" in target)
    and not (name == "width" and target.endswith(("basic_block", "bottleneck")))
    and not why_not_settable(target, "trainer", name)
]
NAMES = [f"{target.rpartition('.')[2]}.{name}" for target, name, _ in PARTS]


def refusal(target, name, value):
    try:
        check({"_target_": target, "_partial_": True, name: value}, "part")
    except UserError as error:
        return str(error)
    return None


@cache
def limits_of(target, name):
    """All limits in the annotation of a parameter, of the items of collections too."""
    annotation = next(a for t, n, a in PARTS if (t, n) == (target, name))
    nodes = [node for node in ast.walk(annotation) if isinstance(node, ast.Subscript)]
    return [limit for node in nodes for limit in declared_limits(node)]


def test_many_settings_are_numbers():
    assert len(PARTS) > 120
    assert {"Distill.iterations", "Attack.epsilon", "SGD.lr", "ConvNet.width"} <= set(NAMES)


@pytest.mark.parametrize(("target", "name"), [(t, n) for t, n, _ in PARTS], ids=NAMES)
def test_a_number_of_this_project_declares_its_limits(target, name):
    if target.startswith("cwx.") and (target, name) not in {
        ("cwx.data.corruption.Backdoor", "target"),
        ("cwx.functional.label_noise.Asymmetric", "to"),
        ("cwx.study.study.Study", "paper"),
    }:
        comparisons = [limit for limit in limits_of(target, name) if limit[0] in "<>"]
        assert comparisons or name == "classes"


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_refused_by_its_full_name_or_is_legal(value):
    wrong = []
    for (target, name, _), label in zip(PARTS, NAMES, strict=True):
        message = refusal(target, name, VALUES[value])
        if message is None:
            wrong += [] if legal(target, name, VALUES[value]) else [f"{label} is accepted"]
        elif not re.fullmatch(rf"part\.{name}\b.{{,250}}", message):
            wrong.append(message)
    assert wrong == []


def legal(target, name, value):
    """Whether a reader expects that a part takes the value."""
    last = target.rpartition(".")[2]
    if value == []:
        # An optimiser that does not take its betas is refused when it is built (check_optimizer).
        return name in {"seeds", "held_out", "clean", "purified", "evaluation_seeds", "images",
                        "top", "mean", "std", "blocks", "betas", "shifts", "noise",
                        "jpeg", "gammas"}  # fmt: skip
    if isinstance(value, str):
        # Names, which are looked up when the data are loaded or a network returns its output.
        return (last, name) in {("Backdoor", "target"), ("external", "output")}
    if isinstance(value, bool | list) or not math.isfinite(value):
        return False
    if value == 0:
        return name in ZERO or f"{last}.{name}" == "Traces.images"
    if value == -1:
        # The last image of a class, and all GPUs of the machine.
        return (last, name) in {("Backdoor", "target"), ("Trainer", "devices")}
    if value == 10**12:
        return "seed" in name or name == "target"
    return 0 < value < 1


def test_limits_are_comparisons_and_words():
    assert unmet_limits(LARGEST, ">= 1") == "" != unmet_limits(LARGEST + 1, ">= 1")
    assert unmet_limits(2**63 - 1, ">= 0, < 2**63") == "" != unmet_limits(2**63, ">= 0, < 2**63")
    assert unmet_limits([1, 1.0], "distinct") == "each value once"
    assert unmet_limits([], "not empty") == "at least one value"
    for text in ("1", "> x", "positive", "= 3", ">1"):
        with pytest.raises(ValueError, match="no limit|could not convert|invalid literal"):
            unmet_limits(0, text)


def test_all_declared_limits_can_be_read():
    for target, name, annotation in PARTS:
        for limit in limits_of(target, name):
            unmet_limits([0.5] if limit[0] not in "<>" else 0.5, limit)
        assert all(type_name(kind) != "Annotated" for kind in alternatives(annotation))
