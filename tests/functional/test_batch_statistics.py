"""Batch norm of several processes is that of one."""

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from cwx.functional.batch_statistics import GlobalBatchNorm, batch_norm


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A group of this process alone, in which the sum over processes is the tensor itself."""
    file = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4), (5, 3, 4, 2), (5, 3, 4, 2, 2), (1, 3, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_outputs_gradients_and_running_statistics_are_those_of_torch(shape, affine):
    generator = torch.Generator().manual_seed(0)
    results = []
    images = torch.randn(shape, generator=generator, dtype=torch.float64)
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64)
    for norm in (F.batch_norm, batch_norm):
        leaf = images.clone().requires_grad_()
        mean, var = torch.zeros(3).double(), torch.ones(3).double()
        weight = torch.tensor([0.5, 1.0, 2.0]).double().requires_grad_() if affine else None
        output = norm(leaf, mean, var, weight, None, training=True, momentum=0.3, eps=1e-5)
        output.backward(upstream)
        results.append([output.detach(), leaf.grad, mean, var, *([weight.grad] if affine else [])])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("alone")
def test_a_batch_of_one_value_per_channel_names_the_setting():
    with pytest.raises(ValueError, match=r"choose a recipe\.batch_size"), GlobalBatchNorm():
        nn.BatchNorm1d(2)(torch.zeros(1, 2))


def test_eval_mode_needs_no_other_process():
    """Ranks may take unequal numbers of steps there."""
    norm = nn.BatchNorm2d(2).eval()
    images = torch.randn(3, 2, 4, 4)
    expected = norm(images)
    with GlobalBatchNorm():
        torch.testing.assert_close(norm(images), expected, rtol=0, atol=0)


@pytest.mark.usefixtures("alone")
def test_a_second_derivative_is_refused():
    """It would lack the part through the statistics of other processes."""
    images = torch.randn(4, 3, requires_grad=True)
    output = batch_norm(images, None, None, training=True)
    (gradient,) = torch.autograd.grad(output.square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.usefixtures("alone")
def test_a_mean_much_larger_than_the_deviation_is_as_exact_as_in_torch():
    images = 1000 + torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    exact = F.batch_norm(images.double(), None, None, training=True)
    torch.testing.assert_close(
        batch_norm(images, None, None, training=True).double(), exact, rtol=0, atol=1e-3
    )
