"""Parameters that cannot be set: the study passes them itself, or they would spoil its networks."""

import re
from collections.abc import Mapping

_CHANGES_TRAINING = (
    "it would change or cut short the training of networks, which the store would take for "
    "complete ones; set the epochs and batches of recipe and method instead"
)
_STUDY_SETS = "the study sets it for each stage"
# Parameters that the study passes itself, and those that change a training behind its back.
_SET_ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "lightning.pytorch.Trainer": {
        "max_epochs": f"{_STUDY_SETS}: set recipe.epochs, or the iterations of the method",
        "precision": f"{_STUDY_SETS}: choose precision@precision.experts=… and "
        "precision@precision.methods=…",
        "logger": f"{_STUDY_SETS}: choose logger=[…]",
        "enable_progress_bar": _STUDY_SETS,
        "use_distributed_sampler": "the data modules divide batches among ranks",
        "callbacks": _STUDY_SETS,
        "plugins": _STUDY_SETS,
        "inference_mode": _STUDY_SETS,
        "enable_checkpointing": _STUDY_SETS,
        **dict.fromkeys(
            (
                "min_epochs", "max_steps", "min_steps", "max_time", "fast_dev_run",
                "overfit_batches", "limit_train_batches", "limit_predict_batches",
                "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm",
                "barebones", "reload_dataloaders_every_n_epochs",
            ),
            _CHANGES_TRAINING,
        ),
    },
}  # fmt: skip

_DATA = "it follows from data"
# Parameters that the study passes to the parts that it builds, by the setting of the part.
_PASSED: Mapping[str, Mapping[str, str]] = {
    r"network|evaluation_networks\.[^.]+": {
        "in_channels": _DATA,
        "image_size": _DATA,
        "num_classes": _DATA,
    },
    r"method\.[^.]+": {
        "subject": "the study passes its data and networks",
        "seed": "all methods have the seed of the study: set seed",
        "stage": "it is the name of the method",
    },
    r"recipe|fine_tuning\.recipe": {
        "networks": "the study passes the networks to train",
        "data": "the study passes its images: set data",
        "seeds": "each network has its own seed: set experts.seeds",
        "stages": "the study passes the names of the networks",
    },
    r".*\.block": dict.fromkeys(
        ("in_channels", "width", "stride", "norm"), "the network passes it to each block"
    ),
    r".*\.norm": dict.fromkeys(
        ("channels", "num_features", "num_channels"), "the network passes it to each layer"
    ),
    r".*\.canvas": dict.fromkeys(
        ("logits", "labels", "target", "count", "generator", "_", "__", "___"),
        "the method passes it for each class",
    ),
    r".*\.optimizer": {"params": "the study passes the parameters"},
    r".*\.schedule": {"optimizer": "the recipe passes its optimizer"},
}


def why_not_settable(target: str, part: str, parameter: str) -> str:
    """Why a parameter must not be set; empty if it may be.

    Args:
        target: the `_target_` of the part.
        part: the setting of the part, such as ``method.distill``.
    """
    if reason := _SET_ELSEWHERE.get(target, {}).get(parameter):
        return reason
    for pattern, reasons in _PASSED.items():
        if parameter in reasons and re.fullmatch(pattern, part):
            return reasons[parameter]
    return ""
