"""The settings that the papers state, by experiment, recipe and dataset construction."""

DISTILL = "method.distill"
# CWX §4 and Appendix A, whatever the study.
COMMON = {
    f"{DISTILL}.inner.steps": 60,
    f"{DISTILL}.inner.learning_rate": 0.02,
    f"{DISTILL}.optimizer.lr": 1000,
    f"{DISTILL}.iterations": 5000,
    f"{DISTILL}.images_per_class": 10,
    f"{DISTILL}.span": 2,
    f"{DISTILL}.start_min": 0,
    f"{DISTILL}.start_max": 20,
    "recipe.epochs": 100,
    "recipe.optimizer.lr": 0.01,
    "recipe.optimizer.momentum": 0.0,
    "corruption._target_": "NoCorruption",
    "dataset_construction._target_": "NoConstruction",
    "network.depth": 3,
    "network.width": 128,
    "data.per_class": None,
    "evaluation_networks": {},
    "experts.seeds": [0, 1, 2],
    "experts.early.seeds": [3, 4, 5, 6, 7, 8, 9],
    "experts.early.epochs": 22,
    "purification._target_": "NoPurification",
}
EVALUATION_NETWORKS = {
    "evaluation_networks": {
        "resnet50": "ResNet",
        "wide_resnet28_10": "WideResNet",
        "densenet121": "DenseNet",
    }
}
ACTIVATION = {
    "method.activation.iterations": 3000,
    "method.activation.optimizer.lr": 10,
    "method.activation.blur_sigma": 1,
    "method.activation.images_per_class": 10,
}
REVEALED = {
    f"{DISTILL}.span": 1,
    f"{DISTILL}.start_max": 0,
    "experts.early.epochs": 1,
    "corruption._target_": "Backdoor",
    "corruption.target": "dog",
    "corruption.rate": 0.05,
}
BACKDOOR = REVEALED | {"purification._target_": "RevealedFilter"}
ATTACK = "recipe.attack"
ADVERSARIAL = {
    "recipe.epochs": 200,
    "recipe.optimizer.momentum": 0.9,
    f"{ATTACK}.epsilon": 4,
    f"{ATTACK}.step": 2,
    f"{ATTACK}.scale": 255,
    f"{ATTACK}.steps": 10,
    f"{ATTACK}.random_start": True,
    "paper": {"gallery/range/distill/min": -5, "gallery/range/distill/max": 5},
}


def table1(*accuracies):
    evaluation_networks = ("expert", *EVALUATION_NETWORKS["evaluation_networks"])
    return {
        f"discriminative/distill/{j}": a
        for j, a in zip(evaluation_networks, accuracies, strict=True)
    }


START = f"{DISTILL}.start_min"


def search(method, **settings):
    """ISCP §4.1 and Algorithm 1, of a mask search by its name."""
    chosen = {
        "canvas._target_": "positive",
        "canvases": 5,
        "searched": 0.2,
        "passes": 5,
        "batch_size": 4,
        "initial": 0.5,
        "alpha": 0.2,
        "beta": 0.0,
        "optimizer._target_": "SignDescent",
        "optimizer.lr": 0.02,
        "learned_canvas": None,
        **settings,
    }
    return {f"method.{method}.{name}": value for name, value in chosen.items()}


# ISCP §4, whatever the study.
ISCP = search("iscp") | {
    "network.stages": [3, 4, 6, 3],
    "evaluation.predictive_power.sizes": [0.01, 0.02, 0.03, 0.05, 0.1],
    "evaluation.predictive_power.images": None,
    "evaluation.predictive_power.canvas_choice": "highest_power",
    "corruption._target_": "NoCorruption",
    "data.per_class": None,
    "evaluation_networks": {},
}
# ISCP §4.2 and Appendices D-F.
COMPARISON = (
    search("iscp_tv02", beta=0.2)
    | search("iscp_tv1", beta=1.0)
    | {
        name: v
        for name, v in search("iscp_learned_canvas").items()
        if not name.endswith("learned_canvas")
    }
    | {
        "method.iscp_learned_canvas.learned_canvas.turn": 5,
        "method.iscp_learned_canvas.learned_canvas.step": 2,
        "method.iscp_learned_canvas.learned_canvas.scale": 255,
        "method.universal.epsilons": [8, 16, 32],
        "method.universal.scale": 255,
        "method.universal.searched": 1.0,
        "method.gradcam.canvas._target_": "positive",
        "evaluation.attention.source": "iscp",
        "evaluation.attention.size": 0.05,
        "paper": {
            f"predictive_power/whole/{name}": power
            for name, power in {
                "universal/8": 0.621,
                "universal/16": 0.967,
                "universal/32": 0.982,
                "iscp/0.05": 0.609,
                "iscp_tv02/0.05": 0.58,
                "iscp_tv1/0.05": 0.302,
                "iscp/0.05/class/airplane": 0.745,
                "iscp/0.05/class/deer": 0.698,
                "iscp/0.05/class/frog": 0.383,
                "iscp_learned_canvas/0.05/class/airplane": 0.76,
                "iscp_learned_canvas/0.05/class/deer": 0.659,
                "iscp_learned_canvas/0.05/class/frog": 0.515,
            }.items()
        },
    }
)
# ISCP §4.3.
BADNETS = {
    "corruption._target_": "Backdoor",
    "corruption.target": "airplane",
    "corruption.rate": 0.05,
    "corruption.trigger.size": 3,
    "experts.clean": [0],
    "method.iscp.explains": "expert",
    "method.iscp_clean.explains": "clean",
}
# Dong et al., §2-4, whatever the study.
DONG = {
    "method": {},
    "evaluation.neurons.taxonomy._target_": "WordNet",
    "evaluation.neurons.fraction": 0.01,
    "evaluation.neurons.sigma": 1.0,
    "evaluation.traces.taxonomy._target_": "WordNet",
    "evaluation.traces.sigma": 1.0,
    "evaluation.traces.neurons": 2,
    "evaluation.traces.ablation": "zero",
}
# Dong et al., §2.1, and Table 2.
ENSEMBLE = {
    "adversary.members": None,
    "adversary.images": None,
    "adversary.step": 5,
    "adversary.scale": 255,
    "adversary.steps": 20,
    "evaluation.accuracy.attacks.fgs_1.epsilon": 1,
    "evaluation.accuracy.attacks.fgs_5.epsilon": 5,
    "evaluation.accuracy.attacks.fgs_5.scale": 255,
    "evaluation.accuracy.top": [1, 5],
}
OCCLUDERS = {
    "evaluation.neurons.sheet.occluder": 11,
    "evaluation.neurons.sheet.stride": 3,
    "data.source.size": 224,
}
CONSISTENCY = {
    "fine_tuning.recipe.alpha": 0.5,
    "fine_tuning.recipe.beta": 0.1,
    "fine_tuning.recipe.attack.steps": 10,
    "fine_tuning.recipe.attack.step": 0.5,
    "fine_tuning.recipe.attack.targeted": True,
}
TRAINED = (
    ENSEMBLE
    | CONSISTENCY
    | {
        "evaluation_networks": {"alexnet": "AlexNet", "vgg16": "VGG", "resnet18": "ResNet"},
        "network.stages": [2, 2, 2, 2],
    }
)
IMAGENET = (
    ENSEMBLE
    | OCCLUDERS
    | {
        "evaluation_networks": dict.fromkeys(("alexnet", "vgg16", "resnet18"), "external"),
        "adversary.targets": 10,
        "network.build._target_": "resnet18",
    }
)
NO_ATTACK = {"recipe.attack._target_": "no_attack"}
# Command line, and what differs from COMMON, ISCP or DONG; None: the setting is not there.
STUDIES = {
    "digits/iscp": {
        "network.stages": None,
        "evaluation.predictive_power.sizes": [0.05, 0.1, 0.2, 0.3],
        "evaluation.predictive_power.canvas_choice": "lowest_loss",
    },
    "cifar10/iscp": {},
    "cifar10/iscp_comparison": COMPARISON,
    "cifar10/iscp_backdoor": BADNETS | search("iscp_clean"),
    "checkpoint/iscp": {
        "network.stages": None,
        "method.iscp.chunk": 5,
        "evaluation.predictive_power.canvas_choice": "lowest_loss",
    },
    # ISCP §4.4: one recipe for all networks.
    **{
        f"cifar10/iscp_features {change}": {
            "evaluation.predictive_power.sizes": [0.05, 0.1],
            "evaluation.predictive_power.canvas_choice": "lowest_loss",
            "recipe.epochs": 100,
            "recipe.batch_size": 128,
            "recipe.optimizer.lr": 0.1,
            "recipe.optimizer.momentum": 0.9,
            **attack,
        }
        for change, attack in {
            "dataset_construction=none": NO_ATTACK,
            "dataset_construction=robust": NO_ATTACK,
            "dataset_construction=non_robust_matched": NO_ATTACK,
            "attack@recipe.attack=pgd_madry": {
                "recipe.attack._target_": "Attack",
                "recipe.attack.epsilon": 8,
                "recipe.attack.step": 2,
                "recipe.attack.steps": 7,
                "recipe.attack.scale": 255,
                "recipe.attack.random_start": True,
            },
        }.items()
    },
    "imagenet/iscp": {
        "network.stages": None,
        "network.build._target_": "resnet50",
        "experts.checkpoints": ["IMAGENET1K_V1"],
        "data.source.size": 224,
    },
    "imagenet/iscp_comparison": {name: v for name, v in COMPARISON.items() if name != "paper"}
    | {"network.stages": None, "network.build._target_": "resnet50", "data.source.size": 224},
    # Dong et al., §3 and Table 1.
    "cifar10/neurons": TRAINED | {"adversary.targets": 3},
    "tiny_imagenet/neurons": TRAINED | {"adversary.targets": 10},
    "imagenet/neurons": IMAGENET | {"fine_tuning._target_": "NoFineTuning"},
    "imagenet/consistency": IMAGENET | CONSISTENCY,
    # Dong et al., Appendix A.
    "imagenet/from_scratch": IMAGENET
    | CONSISTENCY
    | {
        "adversary.members": ["expert", "alexnet", "vgg16"],
        "experts.checkpoints": [],
        "recipe.batch_size": 100,
        "recipe.optimizer.lr": 0.05,
        "recipe.optimizer.momentum": 0.9,
        "recipe.optimizer.weight_decay": 0.00005,
        "recipe.schedule.factor": 0.1,
    },
    "checkpoint/neurons": OCCLUDERS | {"adversary._target_": "NoAdversary"},
    # CWX Table 1 and Figure 1; the fidelity ratio is of CIFAR-10 or of no data set named.
    "cifar10/cwx": EVALUATION_NETWORKS | ACTIVATION,
    "svhn/cwx": EVALUATION_NETWORKS | ACTIVATION | {"paper": table1(1, 1, 1, 1)},
    "gtsrb/cwx": EVALUATION_NETWORKS | ACTIVATION | {"paper": table1(1, 0.977, 0.981, 0.979)},
    "tiny_imagenet/cwx": EVALUATION_NETWORKS
    | ACTIVATION
    | {
        f"{DISTILL}.start_max": 40,
        "experts.early.epochs": 42,
        f"{DISTILL}.images_per_class": 1,
        "method.activation.images_per_class": 1,
        "network.depth": 4,
        "paper": table1(1, 1, 1, 1),
    },
    # CWX §5.
    "cifar10/backdoor": BACKDOOR | ACTIVATION | {"corruption.trigger.size": 3},
    "cifar10/backdoor corruption=blended": BACKDOOR | {"corruption.trigger.ratio": 0.2},
    "cifar10/backdoor corruption=sig": BACKDOOR | {"corruption.trigger.delta": 20},
    "cifar10/scorecard": REVEALED | ACTIVATION | {"corruption.trigger.size": 3},
    # CWX §6.1.
    **{
        f"cifar10/dynamics {START}={start}": {
            f"{DISTILL}.span": 1,
            START: start,
            f"{DISTILL}.start_max": start,
            "experts.early.epochs": 31,
            "evaluation.fidelity.start_min": start,
            "evaluation.fidelity.start_max": start,
        }
        for start in (0, 2, 5, 10, 20, 30)
    },
    # CWX §6.2.
    "cifar10/adversarial": ADVERSARIAL,
    "cifar10/natural": {
        "paper": {
            "accuracy/expert/clean": 0.8534,
            "gallery/range/distill/min": -1,
            "gallery/range/distill/max": 1,
        }
    },
    "cifar10/adversarial recipe=standard": {},
    # CWX §6.3.
    **{
        f"cifar10/noise corruption.rate={rate}": {
            "corruption._target_": "LabelNoise",
            "corruption.kind._target_": "Permuted",
            "corruption.rate": rate,
        }
        for rate in (0, 0.25, 0.5, 0.75)
    },
    # CWX §4 and Appendix A: other networks.
    "cifar10/vgg11": {
        "network._target_": "VGG",
        "network.depth": None,
        "network.width": None,
    },
    "cifar10/alexnet": {"network._target_": "AlexNet", "network.depth": None},
}
# The work that two cores are given: network, epochs, start, images per class, steps, the epochs of
# early experts, and the steps and the learning rate of the inner loop; null is learned.
SMALL = {
    "cifar10/cwx": ({"width": 32}, 12, (0, 2), 10, 300, 4, (10, None)),
    "cifar10/noise": ({"width": 32}, 12, (0, 2), 10, 300, 4, (10, None)),
    "svhn/cwx": ({"width": 32}, 12, (0, 2), 10, 300, 4, (10, None)),
    "gtsrb/cwx": ({"width": 32}, 12, (0, 2), 10, 300, 4, (10, None)),
    "tiny_imagenet/cwx": ({"width": 32, "depth": 4}, 12, (0, 2), 1, 80, 4, (10, None)),
    "cifar10/backdoor": ({"width": 32}, 12, (0, 0), 2, 400, 1, (15, 0.05)),
    "cifar10/adversarial": ({"width": 32}, 12, (0, 2), 10, 300, 4, (10, None)),
    f"cifar10/dynamics {START}=30": ({"width": 32}, 31, (30, 30), 10, 150, 31, (10, None)),
    "cifar10/alexnet": ({"width": 16}, 12, (0, 2), 10, 300, 4, (10, None)),
}
# Dong et al., Appendix A, and Eq 8-11.
PLATEAU = {
    "batch_size": 100,
    "optimizer.lr": 0.05,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.00005,
    "schedule._target_": "ReduceLROnPlateau",
    "schedule.factor": 0.1,
    "_target_": "Expert",
    "attack._target_": "no_attack",
}
CONSISTENCY = PLATEAU | {
    "_target_": "ConsistencyTrainer",
    "alpha": 0.5,
    "beta": 0.1,
    "layer": None,
    "attack._target_": "Attack",
    "attack.steps": 10,
    "attack.targeted": True,
    "attack.random_start": False,
}
RECIPES = {
    "recipe=plateau": ("recipe", PLATEAU),
    "recipe=consistency": ("recipe", CONSISTENCY),
    "fine_tuning=consistency": (
        "fine_tuning.recipe",
        {name: v for name, v in CONSISTENCY.items() if not name.startswith("schedule")}
        | {"optimizer.lr": 0.005, "schedule": None},
    ),
}
# Ilyas et al. 2019, Appendix C, for CIFAR-10: steps, their length, the ball, the source's attack.
CONSTRUCTIONS = {
    "robust": (1000, 0.1, None, "Attack", "FeatureMatching"),
    "non_robust_matched": (1000, 0.1, None, "no_attack", "FeatureMatching"),
    "non_robust_random": (100, 0.1, 0.5, "no_attack", "Uniform"),
    "non_robust_next": (100, 0.1, 0.5, "no_attack", "Asymmetric"),
}
