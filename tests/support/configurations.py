"""Composes and checks configurations as the command line does; the choices of each group."""

from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder, options, selectable

CONF = configuration_folder()
_OPTIONS = options([CONF])
EXPERIMENTS = sorted(_OPTIONS["experiment"])


def at(config, path):
    """The value of a setting by its dotted name."""
    for key in path.split("."):
        config = config[key]
    return config


def kind(target):
    """The last name of a `_target_`."""
    return target.rpartition(".")[2]


def check(*overrides, multirun=False, extra=None):
    return compose_checked(CONF, overrides, multirun=multirun, extra=extra, resumed=None)


# Settings that an experiment leaves to the user.
CHECKPOINT = [
    "data.source.root=x",
    "experts.checkpoints=[x.pt]",
    "network.build._target_=torchvision.models.squeezenet1_0",
]
NEEDED = dict.fromkeys(("checkpoint/iscp", "checkpoint/neurons", "inspect"), CHECKPOINT)
# The overrides that choose a file of each group; some networks need larger images than digits.
CHOICES = {
    "adversary": ["adversary={}"],
    "attack": ["attack@recipe.attack={}"],
    "augment": ["augment@recipe.augment={}", "augment@method.distill.inner.augment={}"],
    "canvas": [
        "method=[iscp,gradcam,iscp_learned_canvas]",
        "evaluation=[attention]",
        *(
            f"canvas@method.{name}.canvas={{}}"
            for name in ("iscp", "gradcam", "iscp_learned_canvas")
        ),
    ],
    "dataset_construction": ["dataset_construction={}"],
    "corruption": ["corruption={}"],
    "covariance": [
        "evaluation=[adversarial_detection,contributions]",
        "covariance@evaluation.adversarial_detection.covariance={}",
        "covariance@evaluation.contributions.covariance={}",
    ],
    "data": ["data={}"],
    "evaluation": ["evaluation=[{}]"],
    "experts": ["experts={}"],
    "logger": ["logger=[{}]"],
    "method": ["method=[{}]", "evaluation=[]"],
    "network": ["experiment=cifar10/cwx", "network={}"],
    "paper": ["paper@paper={}"],
    "pooling": [
        "evaluation=[representations,adversarial_detection,contributions]",
        "pooling@evaluation.representations.pooling={}",
        "pooling@evaluation.contributions.pooling={}",
        "pooling@evaluation.adversarial_detection.pooling={}",
    ],
    "precision": ["precision@precision.experts={}", "precision@precision.methods={}"],
    "recipe": ["recipe={}"],
    "purification": ["purification={}"],
    "cure": ["cure={}", "method=[trigger_inversion,universal]", "evaluation=[attack_success]"],
    "fine_tuning": ["fine_tuning={}"],
    "scale": ["experiment=cifar10/cwx", "scale={}"],
    "taxonomy": ["evaluation=[neurons]", "taxonomy@evaluation.neurons.taxonomy={}"],
    "trainer": ["trainer={}"],
    "unroll": ["unroll@method.distill.unroll={}"],
}
# Settings that a choice leaves to the user.
REQUIRED = {
    "checkpoint": ["experts.checkpoints=[x.pt]"],
    "blended_picture": ["corruption.trigger.picture.path=x"],
    "patch_picture": ["corruption.trigger.picture.path=x"],
    "patch_picture_masked": [
        "corruption.trigger.picture.path=x",
        "corruption.trigger.mask_picture.path=x",
    ],
    "image_folder": ["data.source.root=x"],
    "test_folder": ["data.source.root=x"],
    "webdataset": ["data.source.root=x"],
    "huggingface": ["data.source.dataset=x"],
    "external": ["network.build._target_=torchvision.models.squeezenet1_0"],
    "imported": ["dataset_construction.path=x"],
    "file": ["evaluation.neurons.taxonomy.path=x"],
    # Follows method.iscp, which cannot follow itself.
    "same": ["canvas@method.iscp.canvas=random"],
}
# Groups whose choices are independent: one composition takes a file of each.
INDEPENDENT = [
    "adversary", "attack", "augment", "canvas", "corruption", "covariance", "cure", "data",
    "dataset_construction", "experts", "fine_tuning", "pooling", "precision", "purification",
    "recipe", "taxonomy", "trainer", "unroll",
]  # fmt: skip
# The parts that these groups are parts of.
WITH_PARTS = [
    "method=[distill,iscp,gradcam,iscp_learned_canvas]",
    "evaluation=[neurons,attention,representations,adversarial_detection,contributions]",
]
FILES = {group: selectable(_OPTIONS.get(group, ())) for group in CHOICES}
ROWS = range(max(len(FILES[group]) for group in INDEPENDENT))


def row_of_choices(row):
    """Overrides that take a file of each independent group; the rows together take all files."""
    yield from WITH_PARTS
    for group in INDEPENDENT:
        name = FILES[group][row % len(FILES[group])]
        yield from (line.format(name) for line in CHOICES[group] if "{}" in line)
        yield from REQUIRED.get(name, [])
