"""The real entry as a user calls it, on real digits, shrunk by overrides."""

import os

from support.forked import ForkedProcess
from support.paths import ROOT

RUN = str(ROOT / "run.py")
EXPERTS = ["network.width=4", "recipe.epochs=3", "experts.seeds=[0]", "data.total=600"]
DISTILL = [
    "method.distill.start_max=1",
    "method.distill.inner.steps=3",
    "method.distill.iterations=6",
    "method.distill.checkpoint_every=2",
]
SMALL = [*EXPERTS, *DISTILL, "method.activation.iterations=4"]
# Every method that leaves patterns, each measured.
PATTERNS = [
    "method=[distill,activation,iscp,universal,gradcam]",
    "method.iscp.canvases=1", "method.iscp.passes=1", "method.universal.passes=1",
    "method.universal.chunk=null", "method.gradcam.canvases=2",
    "canvas@method.iscp.canvas=random", "canvas@method.gradcam.canvas=random",
]  # fmt: skip
MEASURED = [
    "evaluation.attention.size=0.1",
    "evaluation.attention.images=2",
    "evaluation.predictive_power.sizes=[0.05,0.1]",
    "evaluation.predictive_power.images=90",
]
QUICKSTART = "evaluation=[fidelity,discriminative,diversity,gallery,attention,predictive_power]"
# Each expert goes on against an attack, at a rate that falls with its loss.
FINE_TUNED = [
    "fine_tuning=consistency",
    "fine_tuning.recipe.epochs=3",
    "fine_tuning.recipe.attack.steps=2",
    "fine_tuning.recipe.schedule={_target_:torch.optim.lr_scheduler.ReduceLROnPlateau,"
    "_partial_:true,patience:0,threshold:0.9}",
    "fine_tuning.recipe.recording.epochs=null",
]


def start(folder, *overrides):
    # One thread a process: with two, one process sums in another order than each of two ranks.
    settings = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    return ForkedProcess(RUN, overrides, folder=folder, environment={**os.environ, **settings})


def run(folder, *overrides):
    process = start(folder, *overrides)
    output, _ = process.communicate(timeout=240)
    return process.returncode, output
