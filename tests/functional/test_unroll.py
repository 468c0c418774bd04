import pytest
import references
import torch
from torch import nn

from cwx.functional.losses import inner_loss
from cwx.functional.unroll import unroll, unroll_plain
from cwx.networks.convnet import ConvNet, instance_norm
from cwx.networks.mlp import MLP

NETWORKS = {
    "convnet, instance norm": lambda: ConvNet(
        in_channels=2, image_size=(6, 6), num_classes=3, depth=2, width=4, norm=instance_norm
    ),
    "convnet, batch norm": lambda: ConvNet(
        in_channels=2, image_size=(6, 6), num_classes=3, depth=1, width=4, norm=nn.BatchNorm2d
    ),
    "convnet, no norm": lambda: ConvNet(
        in_channels=2, image_size=(6, 6), num_classes=3, depth=1, width=4, norm=None
    ),
    "mlp": lambda: MLP(in_channels=2, image_size=(6, 6), num_classes=3, depth=1, width=5),
}
WAYS = {"exact": unroll, "plain": unroll_plain, "literal": references.descent}


def problem(name: str, dtype=torch.float64):
    torch.manual_seed(0)
    # Drawn in double precision whatever the dtype, so that both start from the same numbers.
    network = NETWORKS[name]().double()
    names = [n for n, _ in network.named_parameters()]
    start = [p.detach().clone() for p in network.parameters()]
    target = [p.detach() + 0.1 * torch.randn_like(p) for p in start]
    images = torch.randn(6, 2, 6, 6, dtype=torch.float64)
    network.to(dtype)
    start = [p.detach().to(dtype).requires_grad_() for p in start]
    target = [p.to(dtype) for p in target]
    images = images.to(dtype).requires_grad_()
    rate = torch.tensor(0.1, dtype=dtype, requires_grad=True)
    loss = inner_loss(network, names, torch.tensor([0, 0, 1, 1, 2, 2]))
    return loss, start, target, images, rate


def gradients(way, loss, start, target, images, rate, steps):
    reached = way(loss, start, images, rate, steps)
    distance = references.normalised_distance(start, reached, target)
    wanted = [images, rate, *start]
    found = torch.autograd.grad(distance, wanted, allow_unused=True, materialize_grads=True)
    return torch.cat([t.detach().reshape(-1) for t in reached]), found


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", ["exact", "plain"])
def test_agrees_with_the_literal_reference(name, way):
    setting = problem(name)
    reached, found = gradients(WAYS[way], *setting, steps=7)
    reference, expected = gradients(WAYS["literal"], *setting, steps=7)
    assert relative(reached, reference) < 1e-12
    assert relative(found[0], expected[0]) < 1e-10, "∂D/∂S"
    assert relative(found[1], expected[1]) < 1e-10, "∂D/∂η"
    for a, b in zip(found[2:], expected[2:], strict=True):
        assert (a - b).norm() <= 1e-10 * max(1, b.norm()), "∂D/∂θ_0"


def test_agrees_in_single_precision():
    single, double = (
        gradients(unroll, *problem("convnet, instance norm", dtype), steps=10)[1]
        for dtype in (torch.float32, torch.float64)
    )
    assert relative(single[0].double(), double[0]) < 1e-4


def test_gradient_is_what_finite_differences_say():
    loss, start, target, images, rate = problem("mlp")

    def distance(s):
        return references.normalised_distance(start, unroll(loss, start, s, rate, 3), target)

    _, (found, *_) = gradients(unroll, loss, start, target, images, rate, 3)
    few = images.detach()[:1]
    rest = images.detach()[1:]
    expected = references.finite_difference(lambda s: distance(torch.cat([s, rest])), few, 1e-6)
    assert relative(found[:1], expected) < 1e-6


def test_no_step_is_the_identity():
    loss, start, _, images, rate = problem("mlp")
    for way in (unroll, unroll_plain):
        reached = way(loss, start, images, rate, 0)
        assert all(torch.equal(a, b) for a, b in zip(reached, start, strict=True))


def test_a_copy_of_an_image_permuted_permutes_its_gradient():
    loss, start, target, images, rate = problem("convnet, instance norm")
    order = torch.tensor([1, 0, 3, 2, 5, 4])  # within classes
    _, (found, *_) = gradients(unroll, loss, start, target, images, rate, 4)
    moved = images.detach()[order].requires_grad_()
    _, (permuted, *_) = gradients(unroll, loss, start, target, moved, rate, 4)
    assert relative(permuted, found[order]) < 1e-10


def test_start_is_left_alone():
    loss, start, _, images, rate = problem("mlp")
    before = [p.detach().clone() for p in start]
    reached = unroll(loss, start, images, rate, 2)
    for p in reached:
        p.detach().add_(1)
    assert all(torch.equal(a, b) for a, b in zip(start, before, strict=True))


@pytest.mark.parametrize("way", [unroll, unroll_plain])
@pytest.mark.parametrize(
    ("rate", "steps", "message"),
    [(torch.ones(2), 1, "one scalar"), (torch.tensor(0.1), -1, "0 or more")],
)
def test_bad_arguments(way, rate, steps, message):
    loss, start, _, images, _ = problem("mlp")
    with pytest.raises(ValueError, match=message):
        way(loss, start, images, rate, steps)
