"""What is refused before torch is imported, and what every experiment needs."""

import os
import subprocess
import sys

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from support.configurations import CHOICES, CONF, EXPERIMENTS, NEEDED, REQUIRED, check
from support.paths import ROOT

from cwx.cli import resolvers
from cwx.cli import run as entry
from cwx.cli.config.compose import options
from cwx.cli.config.validate import without_unchosen
from cwx.cli.failures import explained, stop
from cwx.errors import UserError


@pytest.fixture(autouse=True)
def registered():
    resolvers.register_resolvers()


REFUSED = {
    "dat=3": "unknown key dat: did you mean data?",
    "+dat=3": "unknown key dat: did you mean data?",
    "method.distill.iteratons=3": "did you mean method.distill.iterations?",
    "+method.distill.iteratons=3": "did you mean method.distill.iterations?",
    "++method.distill.iteratons=3": "did you mean method.distill.iterations?",
    "+method.distil.iterations=3": "did you mean method.distill?",
    "recipe.optimizer.lrr=1": "did you mean recipe.optimizer.lr?",
    "recipe.attack.epsilon=2": "it may be one of another recipe.attack, for this",
    "trainer.max_epoch=3": "did you mean trainer.max_epochs?",
    "data.source.roott=x": "unknown key data.source.roott: it may be",
    "method.distill.iterations=many": "method.distill.iterations is 'many': it takes int",
    "method.distill.iterations=2.5": "it takes int",
    "method.distill.iterations=true": "it takes int",
    "method.distill.inner.learning_rate=fast": "it takes float",
    "method.activation.clamp=1": "it takes bool",
    "seed=1.5": "seed is 1.5: it takes int",
    "recipe.optimizer.lr=fast": "recipe.optimizer.lr is 'fast': it takes",
    "recipe.optimizer.momentum=much": "recipe.optimizer.momentum is 'much': it takes float",
    "method=[distill,iscp": "method=[distill,iscp cannot be read",
    "experts.seeds=3": "experts.seeds is 3: it takes Sequence[int], as in experts.seeds=[3]",
    "experts.seeds=[a]": "experts.seeds[0] is 'a'",
    "method.distill.distance=literal": "an object with a _target_",
    "network._target_=cwx.networks.convnet.Convnet": "cwx.networks.convnet has no Convnet",
    "network._target_=cwx.networks.convmet.ConvNet": "no module cwx.networks.convmet",
    "network._target_=nowhere.Net": "there is no package nowhere",
    "experiment=digits/quikstart": "did you mean experiment=digits/quickstart?",
    "data=cifar": "did you mean data=cifar10?",
    "method=[distil]": "did you mean method=distill?",
    "method=[iscp_tv]": "did you mean method=iscp_tv",
    "data=image_folder": "data.source.root needs a value",
    "data=test_folder": "data.source.root needs a value",
    "data=test_folder data.source.root=x data.source.class=y": "did you mean data.source.classes?",
    "experts.checkpoints=net.pt": "experts.checkpoints is 'net.pt': it takes Sequence[str]",
    "experts.epoch=last": "experts.epoch is 'last': it takes int | None",
    "experts.chekpoints=[a]": "did you mean experts.checkpoints?",
    "seed=1,2": "add -m",
    "trainer.devices=[1": "",
    "method=[activation]": "evaluation.fidelity.span refers to",
    "corruption=badnet": "did you mean corruption=badnets?",
    "corruption=blended_picture": "corruption.trigger.picture.path needs a value",
    "corruption.rate=0.1": "unknown key corruption.rate",
    "network=external": "network.build._target_ needs a value",
    "network=external network.build._target_=torchvision.models.squeezenet1_0 network.biuld=1": (
        "unknown key network.biuld: did you mean network.build?"
    ),
    "network=imagenet_resnet50 network.in_channels=3 network.build=3": "an object with a _target_",
    "network=imagenet_resnet50 +network.build.progress=often": (
        "network.build.progress is 'often': it takes bool"
    ),
    "network=external network.build._target_=torchvision.models.AlexNet network.build.drpout=1": (
        "unknown key network.build.drpout: did you mean network.build.dropout?"
    ),
    "network=external network.build._target_=nowhere.Net": "there is no package nowhere",
    "dataset_construction=imported": "dataset_construction.path needs a value",
    "adversary=ensembl": "did you mean adversary=ensemble?",
    "adversary=ensemble adversary.stepp=1": "did you mean adversary.step?",
    "adversary=ensemble adversary.members=expert": "it takes Sequence[str] | None",
    "adversary=ensemble adversary.images=1.5": "it takes int | None",
    "experts.evaluation_checkpoints=net.pt": "it takes Mapping[str, str]",
    "experts.evaluation_checkpoints={mlp:3}": "experts.evaluation_checkpoints.mlp is 3: it takes str",
    "dataset_construction=robus": "did you mean dataset_construction=robust?",
    "fine_tuning=consistancy": "did you mean fine_tuning=consistency?",
    "fine_tuning=none fine_tuning.seed=1": "unknown key fine_tuning.seed",
    "recipe=consistency recipe.alfa=1": "mean recipe.alpha?",
    "recipe=consistency recipe.beta=much": "it takes float",
    "recipe.alpha=1": "unknown key recipe.alpha",
    "evaluation=[neurons] evaluation.neurons.fractions=0.1": "did you mean evaluation.neurons.fraction?",
    "evaluation=[neurons] evaluation.neurons.sheet.rows=3": (
        "unknown key evaluation.neurons.sheet.rows"
    ),
    "evaluation=[neurons] evaluation.neurons.layers=conv": "evaluation.neurons.layers is 'conv'",
    "evaluation=[neurons] taxonomy@evaluation.neurons.taxonomy=file": (
        "evaluation.neurons.taxonomy.path needs a value"
    ),
    "evaluation=[neurons] evaluation.neurons.activation._target_="
    "cwx.functional.top_activations.spatial_median": (
        "cwx.functional.top_activations has no spatial_median"
    ),
    "optimize=3": "optimize is 3: it takes the name of a number in metrics.json, or several",
    "optimize=[a,3]": "optimize is ['a', 3]: it takes the name",
}


@pytest.mark.parametrize("override", REFUSED)
def test_refused_with_the_remedy(override):
    with pytest.raises(UserError) as caught:
        check(*override.split())
    assert REFUSED[override] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "method.distill.iterations=3",
        "method.distill.inner.learning_rate=1",
        "+trainer.max_time='00:01:00:00'",
        "network.norm=null",
        "+network@evaluation_networks.wide=convnet",
        "trainer=ddp_cpu",
        "logger=[]",
        "evaluation=[diversity]",
        "method=[distill]",
        "experiment=cifar10/cwx method=[activation] evaluation=[discriminative,gallery]",
        "experiment=cifar10/cwx scale=small method=[activation] evaluation=[gallery]",
        "experiment=cifar10/cwx scale=small recipe=adversarial",
        "experiment=cifar10/adversarial scale=small recipe=standard",
        "corruption=badnets corruption.target=3 purification=revealed",
        "hydra.run.dir=/tmp/x",
        "data.mean=[0.1]",
        "corruption=label_noise_asymmetric corruption.kind.to={cat:dog,3:5}",
        "corruption=badnets corruption.rate=0.1 corruption.target=5",
        "corruption=badnets corruption.trigger.corner=top-left",
        "data=image_folder data.source.root=x data.source.synsets={cat:n02121620,7:n02084071}",
        "data=cifar10 data.source.synsets=null",
        "network=external network.build._target_=torchvision.models.squeezenet1_0 "
        "+network.build.num_classes=10",
        "network=imagenet_resnet50 experts.checkpoints=[ResNet50_Weights.IMAGENET1K_V1]",
        "experts.checkpoints=[a.pt,b.safetensors] experts.epoch=0",
        "network=imagenet_resnet50 +network.build.weights=IMAGENET1K_V1",
        "experiment=cifar10/cwx network=external network.build._target_=torchvision.models.vgg11 "
        "scale=small",
        "method=[iscp_tv1] method.iscp_tv1.beta=2 evaluation=[predictive_power]",
        "experiment=cifar10/iscp_comparison method=[universal] evaluation=[predictive_power]",
        "experiment=cifar10/iscp_comparison scale=small method=[gradcam] evaluation=[accuracy]",
        "dataset_construction=non_robust dataset_construction.algorithm.attack.epsilon=1",
        "dataset_construction=robust recipe=adversarial dataset_construction.algorithm.layer=classifier",
        "recipe=consistency recipe.layer=features.8 recipe.attack.epsilon=8",
        "recipe=adversarial fine_tuning=consistency fine_tuning.recipe.beta=0",
        "experiment=cifar10/natural scale=small fine_tuning=consistency recipe=plateau "
        "evaluation=[accuracy_dong] fine_tuning.recipe.attack.steps=10",
        "evaluation=[traces] evaluation.traces.images=[0,17] evaluation.traces.files=[a.png]",
        "evaluation=[representations,traces] evaluation.representations.networks=[expert]",
        "evaluation=[neurons] evaluation.neurons.sheet=null evaluation.neurons.layers=[a.0,b]",
        "evaluation=[neurons] taxonomy@evaluation.neurons.taxonomy=flat "
        "evaluation.neurons.activation._target_=cwx.functional.top_activations.spatial_mean",
        "adversary=ensemble adversary.members=[expert,mlp] evaluation=[adversarial_set] "
        "adversary.weight=0",
        # D1, in other studies.
        "experiment=imagenet/iscp network=imagenet_alexnet +network@evaluation_networks.vgg=imagenet_vgg16 "
        "+network@evaluation_networks.resnet=imagenet_resnet18 "
        "experts.checkpoints=[AlexNet_Weights.IMAGENET1K_V1] "
        "+experts.evaluation_checkpoints.vgg=VGG16_Weights.IMAGENET1K_V1 "
        "+experts.evaluation_checkpoints.resnet=ResNet18_Weights.IMAGENET1K_V1 adversary=ensemble",
        "optimize=fidelity/ratio hydra/launcher=basic",
        "optimize=[fidelity/ratio,discriminative/distill/expert]",
    ],
)
def test_accepted(override):
    check(*override.split())


def test_what_is_measured_of_representations_is_built():
    chosen = "evaluation=[representations,adversarial_detection,traces]"
    for covariance, settings in (("tied", 1e-6), ("diagonal", 1e-6), ("ledoit_wolf", None)):
        place = "evaluation.adversarial_detection.covariance"
        config = check(chosen, f"covariance@{place}={covariance}")["evaluation"]
        assert config["adversarial_detection"]["covariance"].get("ridge") == settings
        instantiate(config, _convert_="all")
    built = instantiate(check(chosen)["evaluation"], _convert_="all")
    maps = torch.rand(1, 2, 3, 3)
    # Dong et al., §2.3 and §4; D6, D7, D9.
    assert built["representations"].pooling(maps).shape == (1, 18)
    assert built["adversarial_detection"].pooling(maps).shape == (1, 2)
    assert built["adversarial_detection"].covariance.__class__.__name__ == "Tied"
    assert (built["traces"].neurons, built["traces"].sigma, built["traces"].fraction) == (
        2,
        1,
        0.01,
    )


def test_each_value_of_a_sweep_is_checked_before_the_first_job():
    check("seed=0,1", "method.distill.iterations=5,6", multirun=True)
    with pytest.raises(UserError, match="'x'"):
        check("seed=0,1,x", multirun=True)
    check("method.distill.iterations=int(interval(5,8))", multirun=True)
    with pytest.raises(UserError, match="iterations is 5.0: it takes int"):
        check("method.distill.iterations=interval(5,8)", multirun=True)
    check("method.distill.inner.learning_rate=tag(log,interval(0.01,1))", multirun=True)
    check("trainer=glob(d*,exclude=*_cpu)", multirun=True)
    with pytest.raises(UserError, match="data.source.root needs a value"):
        check("data=glob(*_folder)", multirun=True)
    with pytest.raises(UserError, match="names no file"):
        check("corruption=glob(x*)", multirun=True)


@pytest.mark.parametrize("scale", ["paper", "small"])
@pytest.mark.parametrize(
    "sweep",
    [
        "experiment=cifar10/backdoor corruption=badnets,blended,sig,sig_clean_label",
        "experiment=cifar10/dynamics method.distill.start_min=0,2,5,10,20,30",
        "experiment=cifar10/iscp canvas@method.iscp.canvas=positive,negative,random,white",
        "experiment=cifar10/iscp method.iscp.searched=0.2,0.4,0.6,0.8,1 experts.epoch=3,5",
        "experiment=cifar10/iscp_backdoor corruption.target=airplane,truck "
        "augment@recipe.augment=shift_flip,none canvas@method.iscp.canvas=white,random",
        "experiment=cifar10/adversarial,cifar10/natural",
        "experiment=cifar10/noise corruption.rate=0,0.25,0.5,0.75",
        "experiment=cifar10/noise corruption=none,label_noise_uniform",
    ],
)
def test_the_sweeps_of_the_paper_compose(sweep, scale):
    check(*sweep.split(), f"scale={scale}", multirun=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: {distill: {iteratons: 3}}", "did you mean method.distill.iterations?"),
        ("recip: {epochs: 3}", "did you mean recipe?"),
        ("recipe: {epochs: few}", "recipe.epochs is 'few': it takes int"),
        ("method: {distil: {iterations: 3}}", "did you mean method.distill?"),
    ],
)
def test_a_typo_inside_an_experiment_file_is_refused(tmp_path, text, message):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(UserError) as caught:
        check("experiment=mine", extra=str(tmp_path))
    assert message in str(caught.value)


@pytest.mark.parametrize("scale", ["paper", "small"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_instantiates(experiment, scale):
    config = check(f"experiment={experiment}", f"scale={scale}", *NEEDED.get(experiment, []))
    study = instantiate(config, _convert_="all")
    assert set(study.method) == set(config["method"])
    assert study.trainer(max_epochs=3, logger=False).max_epochs == 3
    evaluation_networks = config["evaluation_networks"].values()
    if distill := config["method"].get("distill"):
        assert config["recipe"]["epochs"] >= distill["start_max"] + distill["span"]
    side = config["data"]["source"].get("size") or 32
    for make in (config["network"], *(evaluation_networks if scale == "small" else ())):
        network = instantiate(make)(in_channels=3, image_size=(side, side), num_classes=10)
        classes = 1000 if config["experts"]["checkpoints"] else 10
        assert network.eval()(torch.rand(2, 3, side, side)).shape == (2, classes)


def at(config, path):
    for key in path.split("."):
        config = config[key]
    return config


DISTILL = "method.distill"
# CWX §4 and Appendix A, whatever the study (C3, C8, C9).
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
JUDGES = {
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
BACKDOOR = {
    f"{DISTILL}.span": 1,
    f"{DISTILL}.start_max": 0,
    "experts.early.epochs": 1,
    "purification._target_": "RevealedFilter",
    "corruption._target_": "Backdoor",
    "corruption.target": "dog",
    "corruption.rate": 0.05,
}
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
    evaluation_networks = ("expert", *JUDGES["evaluation_networks"])
    return {
        f"discriminative/distill/{j}": a
        for j, a in zip(evaluation_networks, accuracies, strict=True)
    }


START = f"{DISTILL}.start_min"


def search(method, **settings):
    """ISCP §4.1 and Algorithm 1 (I2, I3, I5-I7), of a mask search by its name."""
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


# I4, I9, I10, whatever the study.
ISCP = search("iscp") | {
    "network.stages": [3, 4, 6, 3],
    "evaluation.predictive_power.sizes": [0.01, 0.02, 0.03, 0.05, 0.1],
    "evaluation.predictive_power.images": None,
    "corruption._target_": "NoCorruption",
    "data.per_class": None,
    "evaluation_networks": {},
}
# I11-I13, I19-I21.
COMPARISON = (
    search("iscp_tv02", beta=0.2)
    | search("iscp_tv1", beta=1.0)
    | {name: v for name, v in search("iscp_learned_canvas").items() if not name.endswith("learned_canvas")}
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
                "iscp/0.05/airplane": 0.745,
                "iscp/0.05/deer": 0.698,
                "iscp/0.05/frog": 0.383,
                "iscp_learned_canvas/0.05/airplane": 0.76,
                "iscp_learned_canvas/0.05/deer": 0.659,
                "iscp_learned_canvas/0.05/frog": 0.515,
            }.items()
        },
    }
)
# I14.
BADNETS = {
    "corruption._target_": "Backdoor",
    "corruption.target": "airplane",
    "corruption.rate": 0.05,
    "corruption.trigger.size": 3,
    "experts.clean": [0],
    "method.iscp.explains": "expert",
    "method.iscp_clean.explains": "clean",
}
# Dong et al., §2-4, whatever the study (D2, D4, D9).
DONG = {
    "method": {},
    "evaluation.neurons.taxonomy._target_": "WordNet",
    "evaluation.neurons.fraction": 0.01,
    "evaluation.neurons.sigma": 1.0,
    "evaluation.traces.taxonomy._target_": "WordNet",
    "evaluation.traces.sigma": 1.0,
    "evaluation.traces.neurons": 2,
}
# D1, D11
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
# Command line, and what differs from COMMON, ISCP or DONG; None: the setting is not there.
STUDIES = {
    "digits/iscp": {
        "network.stages": None,
        "evaluation.predictive_power.sizes": [0.05, 0.1, 0.2, 0.3],
    },
    "cifar10/iscp": {},
    "cifar10/iscp_comparison": COMPARISON,
    "cifar10/iscp_backdoor": BADNETS | search("iscp_clean"),
    "checkpoint/iscp": {"network.stages": None, "method.iscp.chunk": 5},
    # I15.
    **{
        f"cifar10/iscp_features {change}": {"evaluation.predictive_power.sizes": [0.05, 0.1]}
        for change in (
            "dataset_construction=robust",
            "dataset_construction=non_robust",
            "recipe=adversarial",
        )
    },
    "imagenet/iscp": {
        "network.stages": None,
        "network.build._target_": "resnet50",
        "experts.checkpoints": ["ResNet50_Weights.IMAGENET1K_V1"],
        "data.source.size": 224,
    },
    # D8, D10.
    "cifar10/neurons": ENSEMBLE
    | {
        "evaluation_networks": {"alexnet": "AlexNet", "vgg16": "VGG"},
        "network.stages": [2, 2, 2, 2],
        "adversary.targets": 3,
        "fine_tuning.recipe.alpha": 0.5,
        "fine_tuning.recipe.beta": 0.1,
        "fine_tuning.recipe.attack.steps": 10,
        "fine_tuning.recipe.attack.step": 0.5,
        "fine_tuning.recipe.attack.targeted": True,
    },
    "imagenet/neurons": ENSEMBLE
    | OCCLUDERS
    | {
        "evaluation_networks": {"alexnet": "external", "vgg16": "external"},
        "adversary.targets": 10,
        "network.build._target_": "resnet18",
        "fine_tuning._target_": "NoFineTuning",
    },
    "checkpoint/neurons": OCCLUDERS | {"adversary._target_": "NoAdversary"},
    # C10, C11; C5 and C8 report on CIFAR-10 or on nothing named.
    "cifar10/cwx": JUDGES | ACTIVATION,
    "svhn/cwx": JUDGES | ACTIVATION | {"paper": table1(1, 1, 1, 1)},
    "gtsrb/cwx": JUDGES | ACTIVATION | {"paper": table1(1, 0.977, 0.981, 0.979)},
    "tiny_imagenet/cwx": JUDGES
    | ACTIVATION
    | {
        f"{DISTILL}.start_max": 40,
        "experts.early.epochs": 42,
        f"{DISTILL}.images_per_class": 1,
        "method.activation.images_per_class": 1,
        "network.depth": 4,
        "paper": table1(1, 1, 1, 1),
    },
    # C12
    "cifar10/backdoor": BACKDOOR | ACTIVATION | {"corruption.trigger.size": 3},
    "cifar10/backdoor corruption=blended": BACKDOOR | {"corruption.trigger.ratio": 0.2},
    "cifar10/backdoor corruption=sig": BACKDOOR | {"corruption.trigger.delta": 20},
    # C13
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
    # C14
    "cifar10/adversarial": ADVERSARIAL,
    "cifar10/natural": {
        "paper": {
            "accuracy/expert/clean": 0.8534,
            "gallery/range/distill/min": -1,
            "gallery/range/distill/max": 1,
        }
    },
    "cifar10/adversarial recipe=standard": {},
    # C15
    **{
        f"cifar10/noise corruption.rate={rate}": {
            "corruption._target_": "LabelNoise",
            "corruption.kind._target_": "Permuted",
            "corruption.rate": rate,
        }
        for rate in (0, 0.25, 0.5, 0.75)
    },
    # C7
    "cifar10/vgg11": {
        "network._target_": "VGG",
        "network.depth": None,
        "network.width": None,
    },
    "cifar10/alexnet": {"network._target_": "AlexNet", "network.depth": None},
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_has_the_settings_of_the_paper(study):
    config = check(*f"experiment={study}".split(), *NEEDED.get(study.split()[0], []))
    common = COMMON if "distill" in config["method"] else ISCP if config["method"] else DONG
    for path, expected in {**common, **STUDIES[study]}.items():
        parent, _, key = path.rpartition(".")
        found = (at(config, parent) if parent else config).get(key)
        if path == "evaluation_networks":
            found = {
                name: kind(evaluation_network["_target_"])
                for name, evaluation_network in found.items()
            }
        assert (kind(found) if key == "_target_" else found) == expected, path


def kind(target):
    return target.rpartition(".")[2]


def test_every_published_study_is_in_the_table():
    of_digits = {"digits/quickstart", "digits/backdoor"}
    assert {study.split()[0] for study in STUDIES} == {*EXPERIMENTS} - of_digits


def test_the_quickstart_is_of_no_paper_and_no_other_scale():
    config = check()
    assert config["paper"] == {}
    assert config == check("scale=paper")
    assert (config["method"]["distill"]["iterations"], config["recipe"]["epochs"]) == (250, 13)


def test_the_backdoor_on_digits_is_the_quickstart_with_one():
    before, config = check(), check("experiment=digits/backdoor")
    changed = {key for key in config if config[key] != before[key]}
    assert changed == {"corruption", "purification", "evaluation", "method", "experts"}
    # Early experts, of which there are none, would go as far as the start.
    assert config["experts"]["early"].pop("epochs") == 1
    assert before["experts"]["early"].pop("epochs") == 12
    assert config["experts"] == before["experts"]
    assert (config["corruption"]["target"], config["corruption"]["rate"]) == ("3", 0.1)
    distill = {"span": 1, "start_min": 0, "start_max": 0}
    assert config["method"]["distill"] == before["method"]["distill"] | distill
    assert config["method"]["activation"] == before["method"]["activation"]


# The work that two cores are given: images, filters, epochs, start, pictures, steps, and the epochs
# of early experts.
SMALL = {
    "cifar10/cwx": (500, {"width": 32}, 12, (0, 2), 2, 400, 4),
    "svhn/cwx": (500, {"width": 32}, 12, (0, 2), 2, 400, 4),
    "gtsrb/cwx": (125, {"width": 32}, 12, (0, 2), 1, 200, 4),
    "tiny_imagenet/cwx": (25, {"width": 32, "depth": 4}, 12, (0, 2), 1, 80, 4),
    "cifar10/backdoor": (500, {"width": 32}, 12, (0, 0), 2, 400, 1),
    "cifar10/adversarial": (500, {"width": 32}, 12, (0, 2), 2, 400, 4),
    f"cifar10/dynamics {START}=30": (500, {"width": 32}, 31, (30, 30), 2, 400, 31),
    "cifar10/alexnet": (500, {"width": 16}, 12, (0, 2), 2, 400, 4),
}


@pytest.mark.parametrize("study", SMALL)
def test_what_the_small_scale_makes_of_a_study(study):
    config = check(*f"experiment={study} scale=small".split())
    images, network, epochs, start, pictures, steps, early = SMALL[study]
    distill = config["method"]["distill"]
    assert config["data"]["per_class"] == images
    assert network.items() <= config["network"].items()
    assert config["recipe"]["epochs"] == epochs
    assert (distill["start_min"], distill["start_max"]) == start
    assert (distill["images_per_class"], distill["iterations"]) == (pictures, steps)
    assert (distill["inner"]["steps"], distill["inner"]["learning_rate"]) == (15, 0.05)
    assert distill["inner"]["augment"]["operations"] == config["recipe"]["augment"]["operations"]
    assert config["experts"]["early"]["epochs"] == early
    assert distill["unroll"]["compile"] is None
    # What makes a study itself is left alone.
    paper = check(*f"experiment={study}".split())
    for part in ("corruption", "purification", "paper", "seed"):
        assert config[part] == paper[part]
    assert config["evaluation_networks"].keys() == paper["evaluation_networks"].keys()
    assert distill["span"] == paper["method"]["distill"]["span"]
    attack, whole = config["recipe"]["attack"], paper["recipe"]["attack"]
    assert {**attack, "steps": 0} == {**whole, "steps": 0}
    assert config["experts"]["held_out"] == paper["experts"]["held_out"]


def test_the_small_comparison_keeps_what_is_compared():
    """Only the amount of work differs, and by the same for all mask searches."""
    small, paper = (
        check("experiment=cifar10/iscp_comparison", f"scale={scale}")["method"]
        for scale in ("small", "paper")
    )
    work = {"canvases", "searched", "passes", "batch_size", "step", "channels_last"}
    assert list(small) == list(paper)
    for name, method in small.items():
        assert {k for k, v in method.items() if v != paper[name][k]} <= work
    searches = [small[name] for name in ("iscp", "iscp_tv02", "iscp_tv1", "iscp_learned_canvas")]
    assert len({(s["canvases"], s["searched"], s["passes"]) for s in searches}) == 1


def test_the_command_line_has_the_last_word_on_scale():
    config = check("experiment=cifar10/cwx", "scale=small", "network.width=8", "recipe.epochs=20")
    assert (config["network"]["width"], config["recipe"]["epochs"]) == (8, 20)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("paper.a=many", "paper.a is 'many': it takes float"),
        ("scale=smal", "did you mean scale=small?"),
        ("evaluation_networks.resnet.width=8", "unknown key evaluation_networks.resnet"),
    ],
)
def test_figures_scales_and_judges_are_checked(override, message):
    with pytest.raises(UserError) as caught:
        check("experiment=cifar10/cwx", override)
    assert message in str(caught.value)


def test_settings_of_a_part_left_out_are_left_aside():
    config = {"method": {"a": {"_target_": "x"}, "b": {"n": 1}, "c": {"n": 2}}}
    kept = without_unchosen(config, {"method": ["a", "b"]})
    assert kept == {"method": {"a": {"_target_": "x"}, "c": {"n": 2}}}


def test_adversarial_training_is_that_of_the_paper():
    recipe = check("experiment=cifar10/cwx", "recipe=adversarial")["recipe"]
    assert (recipe["epochs"], recipe["optimizer"]["momentum"]) == (200, 0.9)
    attack = recipe["attack"]
    assert [attack[name] for name in ("epsilon", "step", "scale", "steps")] == [4, 2, 255, 10]
    assert attack["random_start"]
    weaker = check("recipe=adversarial", "attack@recipe.attack=fgs", "recipe.attack.epsilon=1")
    assert weaker["recipe"]["attack"]["step"] == 1
    assert weaker["recipe"]["attack"]["steps"] == 1


# Dong et al., Appendix A (D12), and Eq 8-11 (D8).
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


@pytest.mark.parametrize("choice", RECIPES)
def test_a_procedure_is_that_of_dong(choice):
    place, expected = RECIPES[choice]
    config = at(check("experiment=cifar10/natural", choice), place)
    found = {path: at(config, path) for path in expected}
    assert {p: kind(v) if p.endswith("_target_") else v for p, v in found.items()} == expected
    if attack := instantiate(config["attack"]):
        # No ball: from black to white is within it.
        assert attack.epsilon == attack.scale == 255


def test_the_small_scale_of_consistency_moves_images_as_far():
    for choice in ("recipe=consistency", "fine_tuning=consistency"):
        place = RECIPES[choice][0]
        small, whole = (
            at(check("experiment=cifar10/natural", choice, f"scale={scale}"), f"{place}.attack")
            for scale in ("small", "paper")
        )
        assert small["steps"] * small["step"] == whole["steps"] * whole["step"]
        assert small["steps"] < whole["steps"]


def test_accuracy_under_attack_is_measured_as_dong_do():
    """D11: FGS of 1 and of 5 of 255, top-1 and top-5."""
    accuracy = check("evaluation=[accuracy_dong]")["evaluation"]["accuracy"]
    attacks = accuracy["attacks"]
    assert {n: (a["epsilon"], a["scale"], a["steps"]) for n, a in attacks.items()} == {
        "fgs_1": (1, 255, 1),
        "fgs_5": (5, 255, 1),
        "pgd": (4, 255, 10),
    }
    assert all(attacks[name]["step"] == attacks[name]["epsilon"] for name in ("fgs_1", "fgs_5"))
    assert accuracy["top"] == [1, 5]
    assert check("evaluation=[accuracy_under_attack]")["evaluation"]["accuracy"]["top"] == [1]


# Ilyas et al. 2019, Appendix C, for CIFAR-10: steps, their length, the ball, the source's attack.
CONSTRUCTIONS = {
    "robust": (1000, 0.1, None, "Attack", "FeatureMatching"),
    "non_robust_matched": (1000, 0.1, None, "no_attack", "FeatureMatching"),
    "non_robust": (100, 0.1, 0.5, "no_attack", "Uniform"),
    "non_robust_next": (100, 0.1, 0.5, "no_attack", "Asymmetric"),
}


@pytest.mark.parametrize("scale", ["paper", "small"])
@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_a_construction_is_that_of_its_paper(name, scale):
    config = check("experiment=cifar10/natural", f"dataset_construction={name}", f"scale={scale}")
    steps, step, epsilon, source, made = CONSTRUCTIONS[name]
    construction = config["dataset_construction"]
    algorithm, recipe = construction["algorithm"], construction["recipe"]
    moves = algorithm.get("attack", algorithm)
    if scale == "paper":
        assert (moves["steps"], moves["step"], moves.get("epsilon")) == (steps, step, epsilon)
    else:
        # Enough to go through the ball, and for trainings of a minute.
        assert moves["steps"] * moves["step"] > 2 * moves.get("epsilon", 10)
        assert (recipe["epochs"], recipe["batch_size"]) == (12, 64)
    assert kind(recipe["attack"]["_target_"]) == source
    assert kind(algorithm.get("target", algorithm)["_target_"]) == made
    if source == "Attack":
        attack = recipe["attack"]
        assert (attack["epsilon"], attack["scale"]) == (0.5, 1)
        assert kind(attack["ball"]["_target_"]) == "L2"
        assert attack["steps"] * attack["step"] > attack["epsilon"]
    # The network that is attacked is one that natural training leaves.
    natural = {**config["recipe"], "recording": recipe["recording"]}
    assert (recipe == natural) == name.startswith("non_robust"), "as the experts are trained"
    instantiate(construction, _convert_="all")


def test_the_ensemble_attack_is_that_of_the_paper():
    """Dong §2.1 (D1)."""
    adversary = check("adversary=ensemble")["adversary"]
    stated = {"scale": 255, "step": 5, "targets": 10, "images": None, "members": None}
    assert stated.items() <= adversary.items()
    assert 10 <= adversary["steps"] <= 20
    instantiate(adversary, _convert_="all")


def run(*arguments):
    typed = "python run.py method.distill.iter"
    completion = {"COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    return subprocess.run(
        [sys.executable, "-X", "importtime", "run.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **completion},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "resume=runs/"),
        (["--help"], 0, "scale: paper, small"),
        (["experiment=cifar10/cwx", "scale=small", "--cfg", "job"], 0, "width: 32"),
        (["--cfg", "job"], 0, "steps: 20"),
        (["-sc", "query=bash"], 0, "method.distill.iterations="),
        (["sed=1"], 1, "cwx: unknown key sed: did you mean seed?"),
        (["experiment=none"], 1, "cwx: there is no experiment=none"),
        (["resume=nowhere"], 1, "cwx: nowhere is not the folder of a run"),
        (["resume=nowhere", "seed=1"], 1, "remove seed=1"),
        (["--help"], 0, "python run.py ls "),
        (["scale=small", "--cfg", "job", "--resolve"], 0, "id: unnamed"),
        (["ls", "--help"], 0, "usage: python run.py ls"),
        (["report", "--help"], 0, "usage: python run.py report"),
        (["experts", "--help"], 0, "usage: python run.py experts"),
        (["experiments", "--help"], 0, "usage: python run.py experiments"),
        (["experiments"], 0, "cifar10/iscp_features "),
        (["experiments", "cifar10/cwx"], 0, "recipe.epochs "),
        (["experiments", "cifar10/cwxx"], 1, "there is no experiment cifar10/cwxx: did you mean"),
        (["--help"], 0, "python run.py experiments "),
        (["ls", "conf"], 0, "no runs in conf"),
        (["lss"], 1, "cwx: there is no command lss: did you mean ls?"),
        (["report", "nonfolder"], 1, "cwx: nonfolder is not there"),
        (["experts", "--store", "nowhere"], 1, "cwx: nowhere is not there"),
        (["--hlp"], 1, "cwx: there is no --hlp: did you mean --help?"),
        (["seed=1", "ls"], 1, "cwx: ls is not a setting: write key=value"),
        (["-m", "seed=1,2", "--cfg", "job"], 1, "cwx: --cfg and --multirun cannot be combined"),
        (["scale=null"], 1, "cwx: there is no scale=null: there are paper, small"),
        (["-m", "scale=small,null"], 1, "cwx: there is no scale=null: there are paper, small"),
    ],
)
def test_the_entry_answers_without_torch(arguments, code, text):
    done = run(*arguments)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "lightning", "wandb", "torchvision"}


def test_every_group_is_composed_below():
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {"hydra"} == {
        *CHOICES,
        "experiment",
    }


# Small already, or whatever somebody else built.
AS_THEY_ARE = {
    "mlp",
    "convnet_small",
    "external",
    *(f"imagenet_{name}" for name in ("alexnet", "resnet18", "resnet50", "vgg16")),
}


@pytest.mark.parametrize("name", sorted(options([CONF])["network"] - AS_THEY_ARE))
def test_each_network_has_a_small_form(name):
    assert (CONF / "scale/small/network" / f"{name}.yaml").exists()
    check("experiment=cifar10/cwx", "scale=small", f"network={name}")


def test_each_file_below_a_scale_is_of_something():
    for file in (CONF / "scale/small").rglob("*.yaml"):
        group, _, name = str(file.relative_to(CONF / "scale/small").with_suffix("")).partition("/")
        assert name in options([CONF])[group]


@pytest.mark.parametrize(
    ("group", "name"),
    [
        (group, name)
        for group in CHOICES
        for name in sorted(options([CONF])[group])
        if group != "scale" or "/" not in name
    ],
)
def test_each_file_of_a_group_composes(group, name):
    """A configuration that no test composes is dead."""
    check(*(override.format(name) for override in CHOICES[group]), *REQUIRED.get(name, []))


def test_a_target_that_another_package_lacks_is_no_bug(tmp_path):
    study = {"network": {"build": {"_target_": "torchvision.models.squeezenet1_9"}}}
    with pytest.raises(InstantiationException) as refused:
        instantiate(study)
    with pytest.raises(SystemExit) as caught:
        stop(explained(refused.value, str(tmp_path)))
    said = str(caught.value)
    assert "network.build._target_ is 'torchvision.models.squeezenet1_9', which is not" in said
    assert "did you mean torchvision.models.squeezenet1_" in said
    assert "a bug" not in said


def test_the_run_id_is_a_function_of_the_folder():
    assert OmegaConf.create({"a": "${run_id:}"}).a == "unnamed"
