"""What is refused before torch is imported, and what every experiment needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cwx import main as entry
from cwx.configuration import ConfigurationError, without_unchosen
from cwx.overrides import compose_checked, options

ROOT = Path(__file__).parents[1]
CONF = entry.configuration_folder()
EXPERIMENTS = sorted(options([CONF])["experiment"])


@pytest.fixture(autouse=True)
def resolvers():
    entry.register_resolvers()


def check(*overrides, multirun=False, extra=None):
    return compose_checked(CONF, overrides, multirun=multirun, extra=extra, resumed=None)


REFUSED = {
    "dat=3": "unknown key dat: did you mean data?",
    "+dat=3": "unknown key dat: did you mean data?",
    "method.distill.iteratons=3": "did you mean method.distill.iterations?",
    "+method.distill.iteratons=3": "did you mean method.distill.iterations?",
    "++method.distill.iteratons=3": "did you mean method.distill.iterations?",
    "+method.distil.iterations=3": "did you mean method.distill?",
    "procedure.optimizer.lrr=1": "did you mean procedure.optimizer.lr?",
    "procedure.attack.epsilon=2": "it may be one of another procedure.attack, for this",
    "trainer.max_epoch=3": "did you mean trainer.max_epochs?",
    "data.source.roott=x": "unknown key data.source.roott: it may be",
    "method.distill.iterations=many": "method.distill.iterations is 'many': it takes int",
    "method.distill.iterations=2.5": "it takes int",
    "method.distill.iterations=true": "it takes int",
    "method.distill.inner.rate=fast": "it takes float",
    "method.activation.clamp=1": "it takes bool",
    "seed=1.5": "seed is 1.5: it takes int",
    "experts.seeds=3": "experts.seeds is 3",
    "experts.seeds=[a]": "experts.seeds[0] is 'a'",
    "method.distill.distance=literal": "an object with a _target_",
    "network._target_=cwx.networks.convnet.Convnet": "cwx.networks.convnet has no Convnet",
    "network._target_=cwx.networks.convmet.ConvNet": "no module cwx.networks.convmet",
    "network._target_=nowhere.Net": "there is no package nowhere",
    "experiment=digits/quikstart": "did you mean experiment=digits/quickstart?",
    "data=cifar": "did you mean data=cifar10?",
    "method=[distil]": "did you mean method=distill?",
    "data=image_folder": "data.source.root needs a value",
    "seed=1,2": "add -m",
    "trainer.devices=[1": "",
    "method=[activation]": "evaluation.fidelity.span refers to",
    "corruption=badnet": "did you mean corruption=badnets?",
    "corruption=blended_picture": "corruption.trigger.picture.path needs a value",
    "corruption.rate=0.1": "unknown key corruption.rate",
}


@pytest.mark.parametrize("override", REFUSED)
def test_refused_with_the_remedy(override):
    with pytest.raises(ConfigurationError) as caught:
        check(override)
    assert REFUSED[override] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "method.distill.iterations=3",
        "method.distill.inner.rate=1",
        "+trainer.max_time='00:01:00:00'",
        "network.norm=null",
        "+network@judges.wide=convnet",
        "trainer=ddp_cpu",
        "logger=[]",
        "evaluation=[diversity]",
        "method=[distill]",
        "hydra.run.dir=/tmp/x",
        "data.mean=[0.1]",
        "corruption=label_noise_asymmetric corruption.kind.to={cat:dog,3:5}",
        "corruption=badnets corruption.rate=0.1 corruption.target=5",
        "corruption=badnets corruption.trigger.corner=top-left",
    ],
)
def test_accepted(override):
    check(*override.split())


def test_each_value_of_a_sweep_is_checked_before_the_first_job():
    check("seed=0,1", "method.distill.iterations=5,6", multirun=True)
    with pytest.raises(ConfigurationError, match="'x'"):
        check("seed=0,1,x", multirun=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: {distill: {iteratons: 3}}", "did you mean method.distill.iterations?"),
        ("procedur: {epochs: 3}", "did you mean procedure?"),
        ("procedure: {epochs: few}", "procedure.epochs is 'few': it takes int"),
        ("method: {distil: {iterations: 3}}", "did you mean method.distill?"),
    ],
)
def test_a_typo_inside_an_experiment_file_is_refused(tmp_path, text, message):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(ConfigurationError) as caught:
        check("experiment=mine", extra=str(tmp_path))
    assert message in str(caught.value)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_instantiates(experiment):
    config = check(f"experiment={experiment}")
    study = instantiate(config, _convert_="all")
    assert set(study.method) == set(config["method"])
    assert study.trainer(max_epochs=3, logger=False).max_epochs == 3


def test_settings_of_a_part_left_out_are_left_aside():
    config = {"method": {"a": {"_target_": "x"}, "b": {"n": 1}, "c": {"n": 2}}}
    kept = without_unchosen(config, {"method": ["a", "b"]})
    assert kept == {"method": {"a": {"_target_": "x"}, "c": {"n": 2}}}


def test_adversarial_training_is_that_of_the_paper():
    procedure = check("experiment=cifar10/cwx", "procedure=adversarial")["procedure"]
    assert (procedure["epochs"], procedure["optimizer"]["momentum"]) == (200, 0.9)
    attack = procedure["attack"]
    assert [attack[name] for name in ("epsilon", "step", "scale", "steps")] == [4, 2, 255, 10]
    assert attack["random_start"]
    weaker = check(
        "procedure=adversarial", "attack@procedure.attack=fgs", "procedure.attack.epsilon=1"
    )
    assert weaker["procedure"]["attack"]["step"] == 1
    assert weaker["procedure"]["attack"]["steps"] == 1


def test_the_paper_settings_are_the_defaults():
    distill = check("experiment=cifar10/cwx")["method"]["distill"]
    assert (distill["inner"]["steps"], distill["span"], distill["inner"]["rate"]) == (60, 2, 0.02)
    assert (distill["start_min"], distill["start_max"]) == (0, 20)
    assert (distill["iterations"], distill["images_per_class"]) == (5000, 10)
    assert distill["optimizer"]["lr"] == 1000


def run(*arguments):
    typed = "python run.py method.distill.iter"
    completion = {"COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    return subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "run.py"), *arguments],
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
        (["--cfg", "job"], 0, "steps: 20"),
        (["-sc", "query=bash"], 0, "method.distill.iterations="),
        (["sed=1"], 1, "cwx: unknown key sed: did you mean seed?"),
        (["experiment=none"], 1, "cwx: there is no experiment=none"),
        (["resume=nowhere"], 1, "cwx: nowhere is not the folder of a run"),
        (["resume=nowhere", "seed=1"], 1, "remove seed=1"),
    ],
)
def test_the_entry_answers_without_torch(arguments, code, text):
    done = run(*arguments)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "lightning", "wandb", "torchvision"}


# How a file of each group is chosen; the quickstart's digits are too small for some networks.
CHOICES = {
    "attack": ["attack@procedure.attack={}"],
    "augment": ["augment@procedure.augment={}", "augment@method.distill.inner.augment={}"],
    "corruption": ["corruption={}"],
    "data": ["data={}"],
    "evaluation": ["evaluation=[{}]"],
    "logger": ["logger=[{}]"],
    "method": ["method=[{}]", "evaluation=[]"],
    "network": ["experiment=cifar10/cwx", "network={}"],
    "precision": ["precision@precision.experts={}", "precision@precision.methods={}"],
    "procedure": ["procedure={}"],
    "trainer": ["trainer={}"],
    "unroll": ["unroll@method.distill.unroll={}"],
}
REQUIRED = {
    "blended_picture": ["corruption.trigger.picture.path=x"],
    "image_folder": ["data.source.root=x"],
}


def test_every_group_is_composed_below():
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} == {*CHOICES, "experiment"}


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in CHOICES for name in options([CONF])[group]]
)
def test_each_file_of_a_group_composes(group, name):
    """A configuration that no test composes is dead."""
    check(*(override.format(name) for override in CHOICES[group]), *REQUIRED.get(name, []))


def test_the_run_id_is_a_function_of_the_folder():
    assert OmegaConf.create({"a": "${run_id:}"}).a == "unnamed"
