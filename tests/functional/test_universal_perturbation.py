import torch
from torch import nn
from torch.nn import functional as F

from cwx.functional.images import Normalization
from cwx.functional.universal_perturbation import perturb, universal_gradients

NORMALIZATION = Normalization(mean=(0.4, 0.5), std=(0.5, 0.25))


def test_the_gradient_is_that_of_the_formula_one_image_at_a_time():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(18, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    images = torch.rand(2, 3, 2, 3, 3, generator=generator, dtype=torch.float64)
    deltas = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64) / 4
    labels, weights = torch.tensor([2, 0]), torch.tensor([[1.0, 1, 1], [1, 1, 0]]).double()
    found, losses = universal_gradients(
        network, deltas, images, labels, weights, normalization=NORMALIZATION
    )
    for row, count in ((0, 3), (1, 2)):
        delta = deltas[row].clone().requires_grad_()
        total = torch.zeros((), dtype=torch.float64)
        for image in images[row, :count]:
            carrying = torch.minimum(torch.maximum(image + delta, 0 * delta), 0 * delta + 1)
            logits = network(NORMALIZATION.normalize(carrying[None]))
            total = total + F.cross_entropy(logits, labels[row, None])
        (expected,) = torch.autograd.grad(total, delta)
        torch.testing.assert_close(found[row], expected)
        torch.testing.assert_close(losses[row], total.detach())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_perturbed_pixels_are_cut_to_the_range():
    found = perturb(torch.tensor([0.1, 0.5, 0.9]), torch.tensor([-0.5, 0.25, 0.5]))
    assert found.tolist() == [0.0, 0.75, 1.0]
