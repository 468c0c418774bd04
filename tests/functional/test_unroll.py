"""The exact and the plain inner loop equal a literal reference, for each setting and network."""

import warnings

import pytest
import torch
from support import references
from torch import nn

from cwx.functional.loss_derivatives import Compiled, Eager
from cwx.functional.network_loss import NetworkLoss
from cwx.functional.unroll import Descent, Exact, Plain
from cwx.networks.convnet import ConvNet, instance_norm
from cwx.networks.mlp import MLP

SHAPE = {"in_channels": 2, "image_size": (6, 6), "num_classes": 3}
NETWORKS = {
    "convnet, instance norm": lambda: ConvNet(**SHAPE, depth=2, width=4, norm=instance_norm),
    "convnet, batch norm": lambda: ConvNet(**SHAPE, depth=1, width=4, norm=nn.BatchNorm2d),
    "convnet, no norm": lambda: ConvNet(**SHAPE, depth=1, width=4, norm=None),
    "mlp": lambda: MLP(**SHAPE, depth=1, width=5),
}
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def exact(loss, **settings):
    given = {
        "microbatch": None, "keep_every": 1, "offload": False,
        "compile": None, "memory": None,
    }  # fmt: skip
    return Exact(loss, **{**given, **settings})


WAYS = {
    "plain": (Plain, {}),
    "exact": (exact, {}),
    "in parts": (exact, {"microbatch": 4}),
    "one image at a time": (exact, {"microbatch": 1}),
    "recomputed": (exact, {"keep_every": 3}),
    "one state kept": (exact, {"keep_every": 100}),
    "graphs of all steps": (exact, {"memory": 1.0}),
    "graphs of some steps": (exact, {"memory": 1e-4, "keep_every": 2}),
    "states on the host": (exact, {"offload": True, "keep_every": 2}),
}


def everything(images, step):
    return images, LABELS


def shifted_part(images, step):
    """Four images a step, others each time, and moved by as many pixels."""
    chosen = (torch.arange(4) + step) % len(images)
    return images[chosen].roll(step, -1) * 1.1, LABELS[chosen]


class Problem:
    """A start, a target, images and a rate, the same numbers in each precision."""

    def __init__(self, name, dtype=torch.float64):
        torch.manual_seed(0)
        self.network = NETWORKS[name]().double()
        start = references.flat(p.detach() for p in self.network.parameters())
        target = start + 0.1 * torch.randn_like(start)
        images = torch.randn(6, 2, 6, 6, dtype=torch.float64)
        self.network.to(dtype)
        self.loss = NetworkLoss(NETWORKS[name]().to(dtype))
        self.start, self.images = start.to(dtype), images.to(dtype)
        self.target, self.rate = target.to(dtype), torch.tensor(0.1, dtype=dtype)

    def gradients(self, unroll, descent):
        """θ_M and the derivatives of D for S, η and θ_0."""
        leaves = [t.clone().requires_grad_() for t in (self.start, self.images, self.rate)]
        reached = unroll(descent, *leaves)
        distance = references.normalised_distance(leaves[0], reached, self.target)
        return [reached.detach(), *torch.autograd.grad(distance, leaves)]

    def expected(self, descent):
        def literal(descent, start, images, rate):
            return references.descent(
                self.network, start, images, LABELS, rate, descent.steps, descent.momentum,
                descent.batch,
            )  # fmt: skip

        return self.gradients(literal, descent)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("batch", [everything, shifted_part])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", WAYS)
def test_agrees_with_the_literal_reference(name, way, batch, momentum):
    problem, descent = Problem(name), Descent(steps=7, momentum=momentum, batch=batch)
    build, settings = WAYS[way]
    found = problem.gradients(build(problem.loss, **settings), descent)
    for a, b in zip(found, problem.expected(descent), strict=True):
        assert relative(a, b) < 1e-10


@pytest.mark.parametrize("way", WAYS)
def test_agrees_in_single_precision(way):
    descent = Descent(steps=10, momentum=0.0, batch=everything)
    build, settings = WAYS[way]
    problem = Problem("convnet, instance norm", torch.float32)
    found = problem.gradients(build(problem.loss, **settings), descent)
    expected = Problem("convnet, instance norm").expected(descent)
    assert relative(found[2].double(), expected[2]) < 1e-4


def test_gradient_is_what_finite_differences_say():
    problem = Problem("convnet, no norm")
    descent = Descent(steps=3, momentum=0.5, batch=everything)
    unroll = exact(problem.loss)
    rest = problem.images[1:]

    def distance(few):
        reached = unroll(descent, problem.start, torch.cat([few, rest]), problem.rate)
        return references.normalised_distance(problem.start, reached, problem.target)

    found = problem.gradients(unroll, descent)[2]
    expected = references.finite_difference(distance, problem.images[:1], 1e-6)
    assert relative(found[:1], expected) < 1e-6


@pytest.mark.parametrize("build", [exact, Plain])
def test_no_step_is_the_identity(build):
    problem, descent = Problem("mlp"), Descent(steps=0, momentum=0.0, batch=everything)
    reached = build(problem.loss)(descent, problem.start, problem.images, problem.rate)
    assert torch.equal(reached, problem.start)


def test_a_copy_of_an_image_permuted_permutes_its_gradient():
    problem = Problem("convnet, instance norm")
    descent = Descent(steps=4, momentum=0.0, batch=everything)
    order = torch.tensor([1, 0, 3, 2, 5, 4])  # within classes
    found = problem.gradients(exact(problem.loss), descent)[2]
    problem.images = problem.images[order]
    assert relative(problem.gradients(exact(problem.loss), descent)[2], found[order]) < 1e-10


@pytest.mark.parametrize("steps", [0, 2])
def test_start_is_left_alone(steps):
    problem, descent = Problem("mlp"), Descent(steps=steps, momentum=0.0, batch=everything)
    before = problem.start.clone()
    exact(problem.loss)(descent, problem.start, problem.images, problem.rate).add_(1)
    assert torch.equal(problem.start, before)


def test_reaching_without_a_graph_is_the_same_descent():
    problem = Problem("convnet, batch norm")
    descent = Descent(steps=5, momentum=0.7, batch=shifted_part)
    reached = descent.reach(Eager(problem.loss), problem.start, problem.images, problem.rate)
    assert relative(reached, problem.expected(descent)[0]) < 1e-12


def test_running_statistics_are_left_alone():
    network = NETWORKS["convnet, batch norm"]()
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    problem = Problem("convnet, batch norm")
    problem.gradients(exact(problem.loss), Descent(steps=2, momentum=0.0, batch=everything))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.named_buffers())
    assert not list(problem.loss.network.buffers())


def autocast_seen_by(seen):
    def loss(theta, images, labels):
        seen.append(torch.is_autocast_enabled("cpu"))
        return (theta * images.flatten()[: len(theta)]).square().sum()

    return loss


def test_the_backward_pass_computes_in_the_precision_of_the_forward_pass():
    seen: list[bool] = []
    unroll = exact(autocast_seen_by(seen))
    images = torch.ones(1, 3, requires_grad=True)
    descent = Descent(steps=2, momentum=0.0, batch=everything)
    with torch.autocast("cpu", torch.bfloat16):
        reached = unroll(descent, torch.ones(2), images, torch.tensor(0.1))
    reached.sum().backward()
    assert seen == [True] * 4


@pytest.mark.parametrize("build", [exact, Plain])
def test_a_rate_for_each_parameter_is_refused(build):
    problem, descent = Problem("mlp"), Descent(steps=1, momentum=0.0, batch=everything)
    with pytest.raises(ValueError, match="one scalar"):
        build(problem.loss)(descent, problem.start, problem.images, torch.ones(2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Descent(steps=-1, momentum=0.0, batch=everything), "inner steps is -1"),
        (lambda: Descent(steps=1, momentum=1.0, batch=everything), "inner momentum is 1"),
        (lambda: exact(Problem("mlp").loss, microbatch=0), "microbatch is 0"),
        (lambda: exact(Problem("mlp").loss, keep_every=0), "keep_every is 0"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def compiled(monkeypatch, wrong, problem):
    """`Compiled` with a compiler that returns `wrong(result)`."""

    def compiler(function, **_):
        return lambda *arguments: wrong(function(*arguments))

    monkeypatch.setattr(torch, "compile", compiler)
    return Compiled(problem.loss, mode="default")


def arguments(problem):
    direction = torch.randn_like(problem.start)
    return problem.start, problem.images, LABELS, direction


@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_derivatives_equal_eager_ones(name, monkeypatch):
    problem = Problem(name)
    given = arguments(problem)
    ours = compiled(monkeypatch, lambda result: result, problem)
    eager = Eager(problem.loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert relative(ours.gradient(*given[:3]), eager.gradient(*given[:3])) < 1e-12
        for a, b in zip(ours.products(*given), eager.products(*given), strict=True):
            assert relative(a, b) < 1e-12


def doubled(result):
    return 2 * result if isinstance(result, torch.Tensor) else tuple(2 * t for t in result)


def failing(result):
    raise RuntimeError("no compiler here\nand more")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (doubled, "has a relative error of 1.0e[+]00"),
        (failing, "fails .RuntimeError: no compiler here."),
    ],
)
def test_a_wrong_compilation_is_not_used(wrong, message, monkeypatch):
    problem = Problem("mlp")
    ours, eager, given = (
        compiled(monkeypatch, wrong, problem),
        Eager(problem.loss),
        arguments(problem),
    )
    with pytest.warns(UserWarning, match=f"compiled gradient {message}"):
        found = ours.gradient(*given[:3])
    assert torch.equal(found, eager.gradient(*given[:3]))
    with pytest.warns(UserWarning, match=f"compiled products {message}"):
        ours.products(*given)
    # Said once: the shape is known from now on.
    assert torch.equal(ours.products(*given).hessian, eager.products(*given).hessian)


@pytest.mark.slow
def test_the_real_compiler_agrees_also_where_arguments_are_one_tensor():
    problem = Problem("convnet, instance norm", torch.float32)
    ours, eager = Compiled(problem.loss), Eager(problem.loss)
    for direction in (problem.start, torch.randn_like(problem.start)):
        given = (problem.start, problem.images, LABELS, direction)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="compiled products")
            found = ours.products(*given)
        for a, b in zip(found[1:], eager.products(*given)[1:], strict=True):
            assert relative(a, b) < 1e-4


def test_graphs_of_as_many_steps_as_fit_are_kept_and_the_others_recomputed():
    problem = Problem("convnet, instance norm")
    theta, images = problem.start, problem.images
    size = Eager(problem.loss).linearise(theta, images, LABELS).bytes
    calls = []

    class Counted(Eager):
        def products(self, *arguments):
            calls.append("products")
            return super().products(*arguments)

    for budget, recomputed in ((size, 4), (3.5 * size, 2), (100 * size, 0)):
        unroll = exact(problem.loss, memory=budget / 1e9)
        unroll.derivatives = Counted(problem.loss)
        calls.clear()
        problem.gradients(unroll, Descent(steps=5, momentum=0.5, batch=everything))
        assert calls == ["products"] * recomputed


def test_a_budget_below_the_graph_of_one_step_is_refused():
    problem = Problem("mlp")
    unroll = exact(problem.loss, memory=1e-9)
    with pytest.raises(ValueError, match=r"the graph of one step on 6 images takes .* GB"):
        problem.gradients(unroll, Descent(steps=2, momentum=0.0, batch=everything))


@pytest.mark.parametrize(
    "settings", [{"microbatch": 4}, {"compile": "default"}, {"offload": True}, {"memory": -1.0}]
)
def test_settings_that_exclude_kept_graphs_are_refused(settings):
    with pytest.raises(ValueError, match=r"unroll\.memory"):
        exact(Problem("mlp").loss, **{"memory": 1.0, **settings})
