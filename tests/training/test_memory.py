"""A batch that does not fit into the memory names the setting that needs less."""

from functools import partial

import pytest
import torch
from support.builders import expert_requests, experts, image_data, stages
from support.configurations import CONF

from cwx.cli import resolvers
from cwx.cli.config.compose import compose_checked
from cwx.errors import UserError
from cwx.evaluations.outcome import Outcome
from cwx.storage.trajectories import TrajectoryStore
from cwx.study.results import Results
from cwx.study.steps.evaluation import evaluate
from cwx.study.steps.explanation import explain
from cwx.training.memory import is_out_of_memory, method_advice

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …\nmore")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CUDA, True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_errors_for_lack_of_memory_are_recognised(error, expected):
    assert is_out_of_memory(error) is expected


def raise_memory(*_, **__):
    raise CUDA


def raise_shapes(*_, **__):
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([0], r"training expert-0 does not fit .*allocate 2.*: lower recipe\.batch_size"),
        ([0, 1], r"lower experts\.at_once \(2 were trained in parallel\), or lower recipe\.batch"),
    ],
)
def test_training_names_the_number_in_parallel_and_the_batch(tmp_path, seeds, message):
    data = image_data()

    def build(missing):
        module = experts(data, [expert.seed for expert in missing])
        module.objective = raise_memory
        return module

    with pytest.raises(UserError, match=message) as raised:
        stages().train(build, expert_requests(*seeds), TrajectoryStore(tmp_path), at_once=2)
    assert raised.value.__cause__ is CUDA


def test_a_method_names_its_own_settings(subject, tmp_path):
    build = partial(raise_memory, chunk=None, batch_size=4)
    message = r"method mine does not fit.*method\.mine\.chunk to fewer searches \(now all\).*"
    with pytest.raises(UserError, match=message + r"lower method\.mine\.batch_size \(now 4\)"):
        explain({"mine": build}, stages(), subject, Results(tmp_path), seed=0)


def test_an_evaluation_names_the_batch_size_of_the_data(subject):
    with pytest.raises(UserError, match=r"evaluation mine .*lower data\.batch_size \(now 7\)"):
        evaluate({"mine": raise_memory}, subject, {})
    assert evaluate({"mine": lambda *_: Outcome()}, subject, {})


def test_other_errors_are_not_changed(subject):
    with pytest.raises(RuntimeError, match="^mat1 and mat2"):
        evaluate({"mine": raise_shapes}, subject, {})


@pytest.mark.parametrize("method", sorted(f.stem for f in (CONF / "method").glob("*.yaml")))
def test_the_settings_that_are_named_exist(method):
    """For all methods that exist."""
    from hydra.utils import instantiate

    resolvers.register_resolvers()
    config = compose_checked(
        CONF, [f"method=[{method}]", "evaluation=[]"], multirun=False, extra=None, resumed=None
    )
    (name,) = config["method"]
    build = instantiate(config["method"][name], _convert_="all")
    named = [w for w in method_advice(name, build).split() if w.startswith("method.")]
    assert named
    for setting in named:
        part = config
        for key in setting.partition("=")[0].rstrip(",").split("."):
            part = part[key]
