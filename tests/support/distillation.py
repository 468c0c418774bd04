"""The distillation of a small subject."""

from support.builders import sgd, stages

from cwx.functional.augmentation import Strategy
from cwx.functional.inner_loop import Inner
from cwx.functional.trajectory_distance import normalised_distance
from cwx.functional.unroll import Exact
from cwx.methods.distill import Distill


def inner(**settings):
    chosen = {
        "steps": 5,
        "learning_rate": 0.1,
        "momentum": 0.0,
        "batch_size": None,
        "augment": Strategy({}),
    }
    return Inner(**{**chosen, **settings})


def exact(loss, **settings):
    chosen = {
        "microbatch": None,
        "keep_every": 1,
        "offload": False,
        "compile": None,
        "memory": None,
    }
    return Exact(loss, **{**chosen, **settings})


def distill(subject, **settings):
    chosen = {
        "seed": 3,
        "stage": "distill",
        "images_per_class": 2,
        "largest_set": None,
        "initial_std": 1.0,
        "iterations": 40,
        "segments": 2,
        "inner": inner(),
        "span": 2,
        "start_min": 0,
        "start_max": 2,
        "learning_rate_lr": None,
        "optimizer": sgd(20.0, momentum=0.5),
        "clip": 1e9,
        "project": False,
        "distance": normalised_distance,
        "unroll": exact,
        "checkpoint_every": 10,
        "schedule": None,
        "spectral_exponent": 0.0,
        "average": None,
    }
    return Distill(subject=subject, **{**chosen, **settings})


def fitted(module, folder, **settings):
    stages(**settings).fit(module, folder / "m.ckpt", [])
    return module.explanations()
