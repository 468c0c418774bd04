"""Configurations as the command line composes them: every group, and what a user must give."""

from cwx.cli import run as entry
from cwx.cli.config.compose import compose_checked, options

CONF = entry.configuration_folder()
EXPERIMENTS = sorted(options([CONF])["experiment"])


def check(*overrides, multirun=False, extra=None):
    return compose_checked(CONF, overrides, multirun=multirun, extra=extra, resumed=None)


# What only a user knows.
CHECKPOINT = [
    "data.source.root=x",
    "experts.checkpoints=[x.pt]",
    "network.build._target_=torchvision.models.squeezenet1_0",
]
NEEDED = {"checkpoint/iscp": CHECKPOINT, "checkpoint/neurons": CHECKPOINT}
# How a file of each group is chosen; the quickstart's digits are too small for some networks.
CHOICES = {
    "adversary": ["adversary={}"],
    "attack": ["attack@recipe.attack={}"],
    "augment": ["augment@recipe.augment={}", "augment@method.distill.inner.augment={}"],
    "canvas": [
        "method=[iscp,gradcam,iscp_learned_canvas]",
        "evaluation=[attention]",
        *(f"canvas@method.{name}.canvas={{}}" for name in ("iscp", "gradcam", "iscp_learned_canvas")),
    ],
    "dataset_construction": ["dataset_construction={}"],
    "corruption": ["corruption={}"],
    "covariance": [
        "evaluation=[adversarial_detection]",
        "covariance@evaluation.adversarial_detection.covariance={}",
    ],
    "data": ["data={}"],
    "evaluation": ["evaluation=[{}]"],
    "experts": ["experts={}"],
    "logger": ["logger=[{}]"],
    "method": ["method=[{}]", "evaluation=[]"],
    "network": ["experiment=cifar10/cwx", "network={}"],
    "pooling": [
        "evaluation=[representations,adversarial_detection]",
        "pooling@evaluation.representations.pooling={}",
        "pooling@evaluation.adversarial_detection.pooling={}",
    ],
    "precision": ["precision@precision.experts={}", "precision@precision.methods={}"],
    "recipe": ["recipe={}"],
    "purification": ["purification={}"],
    "fine_tuning": ["fine_tuning={}"],
    "scale": ["experiment=cifar10/cwx", "scale={}"],
    "taxonomy": ["evaluation=[neurons]", "taxonomy@evaluation.neurons.taxonomy={}"],
    "trainer": ["trainer={}"],
    "unroll": ["unroll@method.distill.unroll={}"],
}
REQUIRED = {
    "checkpoint": ["experts.checkpoints=[x.pt]"],
    "blended_picture": ["corruption.trigger.picture.path=x"],
    "image_folder": ["data.source.root=x"],
    "test_folder": ["data.source.root=x"],
    "external": ["network.build._target_=torchvision.models.squeezenet1_0"],
    "imported": ["dataset_construction.path=x"],
    "file": ["evaluation.neurons.taxonomy.path=x"],
}
