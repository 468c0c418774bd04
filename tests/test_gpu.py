"""What only a GPU shows; `pytest -m gpu` runs it."""

import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.attacked import swapped
from support.studies import CONTRIBUTIONS, TRACES
from torch import nn

from cwx.evaluations.adversarial.adversarial_detection import AdversarialDetection
from cwx.evaluations.adversarial.representations import Representations
from cwx.functional.class_gaussians import Diagonal, LedoitWolf, Tied
from cwx.functional.images import Normalization
from cwx.functional.loss_derivatives import Eager
from cwx.functional.mask_search import search_gradients
from cwx.functional.network_loss import NetworkLoss
from cwx.functional.representation_distance import flat
from cwx.functional.trajectory_distance import normalised_distance
from cwx.functional.unroll import Descent, Exact
from cwx.networks.convnet import ConvNet, instance_norm
from cwx.training.callbacks import data_wait
from cwx.training.callbacks.data_wait import DataWait

pytestmark = pytest.mark.gpu
LABELS = torch.arange(10).repeat_interleave(2)


def gradient(device, dtype, **settings):
    torch.manual_seed(0)
    network = ConvNet(
        in_channels=3, image_size=(32, 32), num_classes=10, depth=3, width=32, norm=instance_norm
    )
    start = torch.cat([p.detach().reshape(-1) for p in network.parameters()]).to(device, dtype)
    others, images = torch.randn(2, 20, 3, 32, 32).to(device, dtype)
    loss, labels = NetworkLoss(network.to(device, dtype)), LABELS.to(device)
    descent = Descent(steps=5, momentum=0.5, batch=lambda images, _: (images, labels))
    rate = torch.tensor(0.05, device=device, dtype=dtype)
    target = descent.reach(Eager(loss), start, others, rate)
    given = {
        "microbatch": None,
        "keep_every": 1,
        "offload": False,
        "compile": None,
        "memory": None,
        **settings,
    }
    leaf = images.clone().requires_grad_()
    reached = Exact(loss, **given)(descent, start, leaf, rate)
    (found,) = torch.autograd.grad(normalised_distance(start, reached, target), leaf)
    return found.cpu().double()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"offload": True, "keep_every": 2},
        {"microbatch": 5},
        {"compile": "default"},
        {"compile": "reduce-overhead"},
    ],
    ids=str,
)
def test_a_gpu_gives_the_gradient_of_a_cpu(settings, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected = gradient("cpu", torch.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="compiled (gradient|products)")
        warnings.filterwarnings("ignore", message=".*TensorFloat32")
        found = gradient("cuda", torch.float32, **settings)
    assert (found - expected).norm() < 1e-2 * expected.norm()


def test_a_gpu_searches_the_masks_of_a_cpu():
    torch.manual_seed(0)
    network = ConvNet(
        in_channels=3, image_size=(32, 32), num_classes=10, depth=3, width=16, norm=nn.BatchNorm2d
    )
    network = network.double().eval().requires_grad_(False)
    masks, canvases = torch.rand(4, 32, 32).double(), torch.rand(4, 3, 32, 32).double()
    images, weights = torch.rand(4, 3, 3, 32, 32).double(), torch.ones(4, 3).double()
    given = (masks, canvases, images, torch.tensor([0, 3, 5, 9]), weights)
    settings = {
        "normalization": Normalization(mean=(0.5,) * 3, std=(0.5,) * 3),
        "alpha": 0.2,
        "beta": 0.1,
        "canvas": False,
    }
    expected, _ = search_gradients(network, *given, **settings)
    found, _ = search_gradients(network.to("cuda"), *(t.to("cuda") for t in given), **settings)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-8, atol=1e-12)


SETTINGS = {"networks": None, "layer": None, "before_nonlinearity": False}
MEASURED = {
    "ratios": Representations(**SETTINGS, pooling=flat, per_class=None),
    **{
        name: AdversarialDetection(**SETTINGS, pooling=flat, covariance=covariance)
        for name, covariance in (
            ("tied", Tied(ridge=1e-3)),
            ("diagonal", Diagonal(ridge=1e-3)),
            ("ledoit-wolf", LedoitWolf()),
        )
    },
    "contributions": CONTRIBUTIONS(images=6),
    "traces": TRACES(images=2, fraction=0.2),
}


@pytest.mark.parametrize("name", MEASURED)
def test_a_gpu_measures_what_a_cpu_does(convolutional, tmp_path, name):
    subject = replace(convolutional, adversarial=swapped(convolutional.data, tmp_path))
    expected = MEASURED[name](subject, {}).metrics
    found = MEASURED[name](replace(subject, device=torch.device("cuda")), {}).metrics
    assert found == pytest.approx(expected, rel=1e-3, abs=0.01)


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_gpu_waits_for_data_only_while_it_has_no_work(monkeypatch, is_idle):
    monkeypatch.setattr(data_wait, "_SHORTEST", 0.1)
    strategy = SimpleNamespace(root_device=torch.device("cuda"))
    callback, trainer = DataWait(), SimpleNamespace(strategy=strategy)
    matrix = torch.randn(4096, 4096, device="cuda")
    batch = [SimpleNamespace(total=1)]

    def work():
        # More than 0.02 seconds on any GPU.
        for _ in range(20):
            matrix @ matrix

    work()
    torch.cuda.synchronize()
    callback.on_train_start(trainer, None)
    for step in range(10):
        # The program waits for a batch, while the GPU works or not.
        time.sleep(0.02)
        callback.on_train_batch_start(trainer, None, batch, step)
        work()
        if is_idle:
            torch.cuda.synchronize()
        callback.on_train_batch_end(trainer, None, None, batch, step)
    torch.cuda.synchronize()
    waited = callback.share * callback._trained
    assert (waited > 0.19) == is_idle
    assert waited < 0.4
