"""Networks with re-drawn weights."""

import pytest
import torch
from torch import nn

from cwx.training.redrawn import redraw_weights, weight_layers


def network():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )
    layers(torch.randn(16, 3, 8, 8))
    return layers.eval().requires_grad_(False)


def test_weights_are_permuted_and_all_else_stays():
    before, after, images = network(), network(), torch.randn(32, 3, 8, 8)
    redraw_weights(after, images, seed=0)
    for name, old in before.named_parameters():
        new = after.get_parameter(name)
        if old.ndim > 1:
            assert not torch.equal(old, new)
            assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
        else:
            assert torch.equal(old, new)
    assert not any(module.training for module in after.modules())
    assert not torch.allclose(before(images), after(images))


def test_running_statistics_are_those_of_the_new_weights():
    redrawn, images = network(), torch.randn(64, 3, 8, 8)
    redraw_weights(redrawn, images, seed=0)
    outputs = redrawn[0](images)
    assert torch.allclose(redrawn[1].running_mean, outputs.mean((0, 2, 3)), atol=1e-5)
    assert redrawn[1].momentum == 0.1


def test_the_seed_decides():
    networks = [network() for _ in range(3)]
    for redrawn, seed in zip(networks, (0, 0, 1), strict=True):
        redraw_weights(redrawn, torch.randn(8, 3, 8, 8), seed)
    first, second, third = (n[4].weight for n in networks)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def states(layers):
    """The weights as trained, and with so many layers re-drawn."""
    before, after = network(), network()
    redraw_weights(after, torch.randn(32, 3, 8, 8), seed=0, layers=layers)
    return before.state_dict(), after.state_dict()


@pytest.mark.parametrize(
    ("layers", "changed"),
    [
        (1, {"4.weight"}),
        (2, {"4.weight", "0.weight", "1.running_mean", "1.running_var"}),
        (None, {"4.weight", "0.weight", "1.running_mean", "1.running_var"}),
    ],
)
def test_the_cascade_starts_at_the_output(layers, changed):
    before, after = states(layers)
    differ = {name for name in before if not torch.equal(before[name], after[name])}
    assert differ - {"1.num_batches_tracked"} == changed


def test_a_cascade_of_all_layers_has_the_weights_of_all():
    (_, all_layers), (_, cascade) = states(None), states(2)
    assert torch.equal(all_layers["0.weight"], cascade["0.weight"])
    assert torch.equal(states(1)[1]["4.weight"], all_layers["4.weight"])


class LastFirst(nn.Module):
    """A network whose layers run in another order than they are registered."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last, self.first = nn.Linear(5, 2), nn.Linear(12, 5)

    def forward(self, images):
        return self.last(self.first(images.flatten(1)).relu())


def test_layers_count_from_the_output_in_the_order_in_which_they_run():
    before, after = LastFirst().eval(), LastFirst().eval()
    redraw_weights(after, torch.randn(4, 3, 2, 2), seed=0, layers=1)
    assert not torch.equal(before.last.weight, after.last.weight)
    assert torch.equal(before.first.weight, after.first.weight)
    assert [type(layer).__name__ for layer in weight_layers(after)] == ["Linear", "Linear"]


class Attends(nn.Module):
    """Attention reads the weights of its projection without running it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.attend = nn.Linear(3, 4), nn.MultiheadAttention(4, 1, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        tokens = self.embed(images.flatten(2).mT)
        return self.head(self.attend(tokens, tokens, tokens)[0].mean(1))


def test_a_layer_that_does_not_run_itself_keeps_its_place():
    changed = []
    for layers in (1, 2, 3, 4):
        before, after = Attends().eval(), Attends().eval()
        redraw_weights(after, torch.randn(4, 3, 2, 2), seed=0, layers=layers)
        old, new = before.state_dict(), after.state_dict()
        changed.append({name for name in old if not torch.equal(old[name], new[name])})
    head, projection, attention, embedding = (
        {"head.weight"},
        {"attend.out_proj.weight"},
        {"attend.in_proj_weight"},
        {"embed.weight"},
    )
    assert changed == [
        head,
        head | projection,
        head | projection | attention,
        head | projection | attention | embedding,
    ]
