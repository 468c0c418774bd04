"""Mask searches with short settings, and their results."""

from support.builders import stages

from cwx.functional.canvas_sampling import positive
from cwx.functional.mask_search import SignDescent
from cwx.methods.iscp import MaskSearch


def search(subject, **settings):
    chosen = {
        "seed": 3,
        "stage": "iscp",
        "explains": "expert",
        "classes": None,
        "canvas": positive,
        "canvas_network": None,
        "canvas_classes": "own",
        "canvases": 2,
        "searched": 0.8,
        "passes": 4,
        "batch_size": 3,
        "initial": 0.5,
        "alpha": 0.2,
        "alpha_size": 0.25,
        "beta": 0.0,
        "optimizer": lambda groups: SignDescent(groups, lr=0.02),
        "learned_canvas": None,
        "ties": "mean",
        "channels_last": False,
        "chunk": None,
    }
    return MaskSearch(subject=subject, **{**chosen, **settings})


def fitted(module, folder, **settings):
    stages(**settings).fit(module, folder / "m.ckpt", [])
    return module.explanations()
