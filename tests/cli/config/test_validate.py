"""Invalid configurations are refused in one line with a remedy, before torch is imported."""

from functools import cache

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from support.configurations import CONF, check

from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import options
from cwx.cli.config.unchosen import drop_unchosen
from cwx.cli.config.validate import check as check_configuration
from cwx.cli.failures import exit_with_message, explain_failure
from cwx.cli.resolvers import register_resolvers
from cwx.errors import UserError


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


REFUSED = {
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
    "experts.seeds=3": "experts.seeds is 3: it takes Sequence[int], as in experts.seeds=[3]",
    "experts.seeds=[a]": "experts.seeds[0] is 'a'",
    "method.distill.distance=literal": "an object with a _target_",
    "network._target_=cwx.networks.convnet.Convnet": "cwx.networks.convnet has no Convnet",
    "network._target_=cwx.networks.convmet.ConvNet": "no module cwx.networks.convmet",
    "network._target_=nowhere.Net": "there is no package nowhere",
    "experts.checkpoints=net.pt": "experts.checkpoints is 'net.pt': it takes Sequence[str]",
    "experts.epoch=last": "experts.epoch is 'last': it takes int | None",
    "experts.chekpoints=[a]": "did you mean experts.checkpoints?",
    "corruption.rate=0.1": "unknown key corruption.rate",
    "network=imagenet_resnet50 network.in_channels=3 network.build=3": "an object with a _target_",
    "network=imagenet_resnet50 +network.build.progress=often": (
        "network.build.progress is 'often': it takes bool"
    ),
    "adversary=ensemble adversary.stepp=1": "did you mean adversary.step?",
    "adversary=ensemble adversary.members=expert": "it takes Sequence[str] | None",
    "adversary=ensemble adversary.images=1.5": "it takes int | None",
    "experts.evaluation_checkpoints=net.pt": "it takes Mapping[str, str]",
    "experts.evaluation_checkpoints={mlp:3}": (
        "experts.evaluation_checkpoints.mlp is 3: it takes str"
    ),
    "fine_tuning=none fine_tuning.seed=1": "unknown key fine_tuning.seed",
    "recipe=consistency recipe.alfa=1": "mean recipe.alpha?",
    "recipe=consistency recipe.beta=much": "it takes float",
    "recipe.alpha=1": "unknown key recipe.alpha",
    "evaluation=[neurons] evaluation.neurons.fractions=0.1": (
        "did you mean evaluation.neurons.fraction?"
    ),
    "evaluation=[neurons] evaluation.neurons.sheet.rows=3": (
        "unknown key evaluation.neurons.sheet.rows"
    ),
    "evaluation=[neurons] evaluation.neurons.layers=conv": "evaluation.neurons.layers is 'conv'",
    "evaluation=[neurons] "
    "evaluation.neurons.activation._target_=cwx.functional.top_activations.spatial_median": (
        "cwx.functional.top_activations has no spatial_median"
    ),
    "method.distill.iterations=0": "method.distill.iterations is 0: give 1 or more and at most",
    "method.distill.iterations=-5": "method.distill.iterations is -5: give 1 or more",
    "method.distill.span=0": "method.distill.span is 0: give 1 or more",
    "method.distill.segments=0": "method.distill.segments is 0: give 1 or more",
    "method.distill.images_per_class=0": "method.distill.images_per_class is 0",
    "method.distill.checkpoint_every=0": "method.distill.checkpoint_every is 0",
    "method.distill.optimizer.lr=nan": "method.distill.optimizer.lr is nan: give a finite number",
    "method.distill.inner.learning_rate=nan": "method.distill.inner.learning_rate is nan",
    "method.distill.inner.steps=0": "method.distill.inner.steps is 0: give 1 or more",
    "method=[iscp] evaluation=[] method.iscp.classes=[]": (
        "method.iscp.classes is []: give at least one value and each value once"
    ),
    "method=[iscp] evaluation=[] method.iscp.classes=[a,a]": (
        "method.iscp.classes is ['a', 'a']: give"
    ),
    "method.activation.blur_sigma=-1": "method.activation.blur_sigma is -1: give 0 or more",
    "method.activation.blur_sigma=nan": "method.activation.blur_sigma is nan: give a finite",
    "seed=99999999999999999999": "seed is 99999999999999999999: give an integer of at most 64 bits",
    "seed=-1": "seed is -1: give 0 or more and below 2**63",
    "seed=true": "seed is True: it takes int",
    "experts.seeds=[99999999999999999999999]": (
        "experts.seeds[0] is 99999999999999999999999: give an integer"
    ),
    "experts.seeds=[1,1]": "experts.seeds is [1, 1]: give each value once",
    "experts.seeds=[-1]": "experts.seeds[0] is -1: give 0 or more",
    "experts.seeds=[true]": "experts.seeds[0] is True: it takes int",
    "evaluation=[predictive_power] method=[iscp] evaluation.predictive_power.sizes=[nan]": (
        "evaluation.predictive_power.sizes[0] is nan"
    ),
    "evaluation=[predictive_power] method=[iscp] evaluation.predictive_power.sizes=[0]": (
        "sizes[0] is 0: give above 0 and at most 1"
    ),
    "evaluation=[predictive_power] method=[iscp] evaluation.predictive_power.sizes=[2]": (
        "sizes[0] is 2: give above 0 and at most 1"
    ),
    "evaluation=[predictive_power] method=[iscp] evaluation.predictive_power.sizes=[]": (
        "sizes is []: give at least one value"
    ),
    "evaluation=[predictive_power] method=[iscp] evaluation.predictive_power.sizes=[0.1,0.1]": (
        "each value once"
    ),
    "network.width=0": "network.width is 0: give 1 or more",
    "network.width=1000000000000": (
        "network.width is 1000000000000: give 1 or more and at most 1000000000"
    ),
    "network.width=9999999999999999999999999999999999999999": (
        "network.width is 9999999999999999999999999999999999999999: give an integer of at "
        "most 64 bits"
    ),
    "trainer.devices=0": "trainer.devices is 0: give a number of devices, -1 for all GPUs",
    "trainer.devices=[]": "trainer.devices is []: give a number of devices",
    "trainer.devices=many": "trainer.devices is many: give a number of devices",
    "data.std=nan": "data.std is nan: give a finite number",
    "data.std=0": "data.std is 0: give 0.001 or more and at most 1",
    "data.std=[0.2,-0.1]": "data.std[1] is -0.1: give 0.001 or more",
    "data.mean=inf": "data.mean is inf: give a finite number",
    "data.mean=127.5": "data.mean is 127.5: give 0 or more and at most 1",
    "recipe.optimizer.lr=inf": "recipe.optimizer.lr is inf: give a finite number",
    "recipe.optimizer.lr=0": "recipe.optimizer.lr is 0: give above 0",
    "recipe.optimizer.momentum=1": "recipe.optimizer.momentum is 1: give 0 or more and below 1",
    "+paper.a=nan": "paper.a is nan: give a finite number",
    "+trainer.max_epochs=3": "trainer.max_epochs cannot be set: the study sets it",
    "+trainer.max_time='00:01:00:00'": (
        "trainer.max_time cannot be set: it would change or cut short"
    ),
    "+trainer.limit_train_batches=1": "trainer.limit_train_batches cannot be set",
    "+method.distill.seed=3": "method.distill.seed cannot be set: all methods have the seed",
    "+network.in_channels=3": "network.in_channels cannot be set: it follows from data",
    "+recipe.seeds=[1]": (
        "recipe.seeds cannot be set: each network has its own seed: set experts.seeds"
    ),
    "+network.norm.channels=3": "network.norm.channels cannot be set: the network passes it",
}
# Refused while the files are composed, or by the words themselves.
REFUSED_BY_COMPOSITION = {
    "dat=3": "unknown key dat: did you mean data?",
    "method=[distill,iscp": "method=[distill,iscp cannot be read",
    "experiment=digits/quikstart": "did you mean experiment=digits/quickstart?",
    "data=cifar": "did you mean data=cifar10?",
    "method=[distil]": "did you mean method=distill?",
    "method=[iscp_tv]": "did you mean method=iscp_tv",
    "data=image_folder": "data.source.root needs a value",
    "data=test_folder": "data.source.root needs a value",
    "data=test_folder data.source.root=x data.source.class=y": "did you mean data.source.classes?",
    "seed=1,2": "add -m",
    "trainer.devices=[1": "",
    "method=[activation]": "evaluation.fidelity.span refers to",
    "corruption=badnet": "did you mean corruption=badnets?",
    "corruption=blended_picture": "corruption.trigger.picture.path needs a value",
    "network=external": "network.build._target_ needs a value",
    "network=external network.build._target_=torchvision.models.squeezenet1_0 network.biuld=1": (
        "unknown key network.biuld: did you mean network.build?"
    ),
    "network=external network.build._target_=torchvision.models.AlexNet network.build.drpout=1": (
        "unknown key network.build.drpout: did you mean network.build.dropout?"
    ),
    "network=external network.build._target_=nowhere.Net": "there is no package nowhere",
    "dataset_construction=imported": "dataset_construction.path needs a value",
    "adversary=ensembl": "did you mean adversary=ensemble?",
    "dataset_construction=robus": "did you mean dataset_construction=robust?",
    "fine_tuning=consistancy": "did you mean fine_tuning=consistency?",
    "evaluation=[neurons] taxonomy@evaluation.neurons.taxonomy=file": (
        "evaluation.neurons.taxonomy.path needs a value"
    ),
    "optimize=3": "optimize is 3: it takes the name of a metric in metrics.json, or several",
    "optimize=[a,3]": "optimize is ['a', 3]: it takes the name",
    "optimize=fidelity/ratio": "optimize is 'fidelity/ratio', but one run has nothing to optimise",
}


GROUPS = options([CONF])


@cache
def composed(*choices):
    return check(*choices)


def check_quickly(*words):
    """As `check`; settings that choose no file are set in a composed configuration.

    Composition takes most of the time of a check.
    """
    words = [OverridesParser.create().parse_override(word) for word in words]
    plain = [w for w in words if not w.is_sweep_override() and is_setting(w)]
    choices = [str(w.input_line) for w in words if w not in plain]
    config = OmegaConf.create(composed(*choices))
    for word in plain:
        OmegaConf.update(config, word.key_or_group, word.value(), force_add=True)
    check_configuration(OmegaConf.to_container(config))


def is_setting(word):
    key = word.key_or_group
    return not (key in GROUPS or "/" in key or word.package or key.startswith("hydra"))


def expect_refusal(check_overrides, override, message):
    with pytest.raises(UserError) as caught:
        check_overrides(*override.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", REFUSED)
def test_an_invalid_setting_is_refused_with_a_remedy(override):
    expect_refusal(check_quickly, override, REFUSED[override])


@pytest.mark.parametrize("override", REFUSED_BY_COMPOSITION)
def test_what_cannot_be_composed_is_refused_with_a_remedy(override):
    expect_refusal(check, override, REFUSED_BY_COMPOSITION[override])


@pytest.mark.parametrize(
    "override",
    [
        "method.distill.iterations=3",
        "method.distill.inner.learning_rate=1",
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
        "dataset_construction=non_robust_random dataset_construction.algorithm.attack.epsilon=1",
        "dataset_construction=robust recipe=adversarial "
        "dataset_construction.algorithm.layer=classifier",
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
        # The attack of Dong et al. in other studies.
        "experiment=imagenet/iscp network=imagenet_alexnet "
        "+network@evaluation_networks.vgg=imagenet_vgg16 "
        "+network@evaluation_networks.resnet=imagenet_resnet18 "
        "experts.checkpoints=[AlexNet_Weights.IMAGENET1K_V1] "
        "+experts.evaluation_checkpoints.vgg=VGG16_Weights.IMAGENET1K_V1 "
        "+experts.evaluation_checkpoints.resnet=ResNet18_Weights.IMAGENET1K_V1 adversary=ensemble",
        "hydra/launcher=basic",
    ],
)
def test_a_valid_setting_is_accepted(override):
    # Choices may leave settings without a value, which composition refuses.
    composes = any(word.partition("=")[0] in GROUPS for word in override.split())
    (check if composes else check_quickly)(*override.split())


def test_a_sweep_and_its_jobs_may_optimise_metrics():
    check("optimize=fidelity/ratio", "seed=0,1", multirun=True)
    check("optimize=[fidelity/ratio,discriminative/distill/expert]", "hydra.job.num=3")


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("paper.a=many", "paper.a is 'many': it takes float"),
        ("scale=smal", "did you mean scale=small?"),
        ("evaluation_networks.resnet.width=8", "unknown key evaluation_networks.resnet"),
    ],
)
def test_paper_values_scales_and_evaluation_networks_are_checked(override, message):
    with pytest.raises(UserError) as caught:
        check("experiment=cifar10/cwx", override)
    assert message in str(caught.value)


def test_settings_of_a_part_that_is_not_chosen_are_dropped():
    config = {"method": {"a": {"_target_": "x"}, "b": {"n": 1}, "c": {"n": 2}}}
    result = drop_unchosen(config, {"method": ["a", "b"]})
    assert result == {"method": {"a": {"_target_": "x"}, "c": {"n": 2}}}


@pytest.mark.parametrize(
    "overrides",
    [["fine_tuning=none"], ["adversary=none", "fine_tuning=none", "evaluation=[neurons]"]],
)
def test_an_experiment_composes_without_a_part_that_it_sets(overrides):
    check("experiment=cifar10/neurons", *overrides)
    check("experiment=cifar10/neurons", "scale=small", *overrides)


def test_a_setting_of_the_experiment_can_be_removed_with_its_part():
    check("experiment=cifar10/neurons", "adversary=none", "~adversary.targets", "fine_tuning=none",
          "evaluation=[neurons]")  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=[activation]", "evaluation=[accuracy]", "method.distill.images_per_class=3"],
        ["evaluation=[accuracy]", "evaluation.neurons.bins=3"],
        ["logger=[]", "logger.wandb.mode=offline"],
        ["evaluation_networks.vgg16.width=8"],
        ["-m", "method=[activation],[]", "evaluation=[accuracy]", "method.distill.batch_size=1,3"],
    ],
)
def test_a_setting_of_the_command_line_for_a_part_that_is_not_chosen_is_refused(overrides):
    setting = overrides[-1].partition("=")[0]
    group, part, _ = setting.split(".", 2)
    multirun = overrides[0] == "-m"
    lines = ["experiment=cifar10/cwx", *overrides[multirun:]]
    with pytest.raises(UserError) as caught:
        compose_checked(CONF, lines, multirun=multirun, extra=None, resumed=None)
    assert f"{setting} is set, but {group} has no {part} here" in str(caught.value)


@pytest.mark.parametrize("methods", ["[activation],[distill]", "[distill],[activation]"])
def test_a_sweep_over_methods_may_set_what_one_job_takes(methods):
    lines = ["experiment=cifar10/cwx", "evaluation=[accuracy]", f"method={methods}"]
    lines.append("method.distill.images_per_class=3")
    compose_checked(CONF, lines, multirun=True, extra=None, resumed=None)


@pytest.mark.parametrize(
    "lines",
    [["-m", "hydra.launcher.resume=true"], ["hydra.job.num=0"]],
    ids=["a sweep that continues", "a job of a sweep"],
)
def test_what_a_sweep_has_checked_is_not_refused_again(lines):
    """A job has the settings of all jobs, also those of parts that only another job has."""
    multirun = lines[0] == "-m"
    overrides = ["experiment=cifar10/cwx", "evaluation=[accuracy]", "method=[activation]"]
    overrides += ["method.distill.images_per_class=3", *lines[multirun:]]
    compose_checked(CONF, overrides, multirun=multirun, extra=None, resumed=None)


def test_settings_of_a_part_that_takes_none_are_dropped():
    none = {"_target_": "cwx.study.steps.adversary.NoAdversary"}
    config = {"adversary": {**none, "targets": 3}, "x": {**none, "kept": 1}}
    assert drop_unchosen(config, {"adversary": []}) == {"adversary": none, "x": config["x"]}


def test_an_unknown_target_of_another_package_is_reported_as_a_users_error(tmp_path):
    study = {"network": {"build": {"_target_": "torchvision.models.squeezenet1_9"}}}
    with pytest.raises(InstantiationException) as refused:
        instantiate(study)
    with pytest.raises(SystemExit) as caught:
        exit_with_message(explain_failure(refused.value, str(tmp_path)))
    message = str(caught.value)
    assert (
        "network.build._target_ is 'torchvision.models.squeezenet1_9', which does not exist"
        in message
    )
    assert "did you mean torchvision.models.squeezenet1_" in message
    assert "a bug" not in message


def test_a_configuration_that_does_not_run_has_no_run_id():
    assert OmegaConf.create({"a": "${run_id:}"}).a == "unnamed"
