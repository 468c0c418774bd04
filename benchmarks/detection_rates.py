"""How often the verdict detects backdoors, and how often it flags clean networks.

    uv run benchmarks/detection_rates.py --rate 0.1             digits: about 75 minutes on one core
    uv run benchmarks/detection_rates.py --experiment cifar10/verdict --scale small \\
        --bank 39 --clean 20 --each 10 --out cifar10.json

Trains clean and backdoored networks of the experiment, searches the statistics of all, and compares
each test network with the bank as `evaluation=[verdict]` does. Targets, places and seeds differ
between the networks. Networks and statistics are kept in the store: a second call continues. The
table has, for each attack, the area under the ROC curve with its 95 % bootstrap interval, the rate
of p <= 0.05 with its exact 95 % interval, and the rate of the right class among those. A network
counts if its attack succeeds on 90 % of the test images and its accuracy is at most 2 points below
the mean of the clean networks; the others are counted apart. Beside it are the rules of Neural
Cleanse: the anomaly index, and the smallest mask norm as it is.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from scipy.stats import beta
from torch import Tensor

from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder, options
from cwx.cli.config.override_text import override
from cwx.cli.config.validate import drop_unchosen
from cwx.cli.resolvers import register_resolvers
from cwx.cli.run import quiet
from cwx.evaluations.backdoor.attack_success import attacked_images
from cwx.functional.auroc import auroc
from cwx.functional.bank_comparison import BankComparison, compare_with_bank
from cwx.functional.neural_cleanse_index import neural_cleanse_index
from cwx.functional.rng import stream
from cwx.networks.eval_mode import accuracy
from cwx.study.steps.bank import BankMeasurement
from cwx.training.bank import Bank
from cwx.training.build import trained_network
from cwx.training.provider import Training
from cwx.training.stages import Stages
from cwx.training.subject import Subject

BANK, CLEAN, BACKDOORED = 1000, 2000, 3000
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
ATTACKS = ("badnets", "blended", "sig", "wanet", "adaptive_blend", "all_to_all")
ALPHA, SUCCESS, DROP = 0.05, 0.9, 0.02


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A network: how it was trained, what it does, and its statistics ``[S, K]``."""

    attack: str
    seed: int
    accuracy: float
    success: float | None
    targets: Sequence[int]
    statistics: Tensor
    names: Sequence[str]
    seconds: float


def corruption(attack: str, seed: int, rate: str | None, classes: Sequence[str]) -> list[str]:
    """The settings of an attack; its target and its place follow from the seed."""
    if attack == "clean":
        return ["corruption=none"]
    settings = [f"corruption={attack}", f"corruption.seed={seed}"]
    if attack != "all_to_all":
        settings.append(override("corruption.target", classes[seed % len(classes)]))
    if attack in ("badnets", "all_to_all"):
        settings.append(f"corruption.trigger.corner={CORNERS[seed % 4]}")
    if rate is not None:
        settings.append(f"corruption.rate={rate}")
        if attack.startswith("adaptive"):
            settings.append(f"corruption.cover_rate={rate}")
    return settings


def measure(overrides: Sequence[str], attack: str, seeds: Sequence[int]) -> Iterator[Measured]:
    """Train the networks of one corruption and search their statistics, unless stored."""
    folder = configuration_folder()
    composed: Any = compose_checked(
        folder, [*overrides, "logger=[]"], multirun=False, extra=None, resumed=None
    )
    composed.pop("optimize", None)
    configuration = drop_unchosen(composed, options([folder]))
    study = instantiate(configuration, _convert_="all")
    study.data.prepare_data()
    study.data.setup()
    study.data.corrupt(study.corruption)
    stages = Stages(study.trainer, study.precision)
    training = Training(
        stages=stages,
        network=study.network,
        store=study.store,
        recipe=study.recipe,
        configuration=configuration,
        at_once=study.experts.at_once,
    )
    trajectories = training.experts("suspect", seeds=seeds, data=study.data)
    subject = Subject(
        data=study.data,
        factory=study.network,
        trajectories=trajectories[:1],
        held_out=[],
        evaluation_networks={},
        bank=Bank(trajectories=trajectories),
        device=stages.device,
    )
    search = BankMeasurement(
        stages=stages,
        method=study.method,
        store=study.store,
        configuration=configuration,
        seed=study.seed,
    )
    start = time.monotonic()
    verdict = study.evaluation["verdict"]
    settings = configuration["evaluation"]["verdict"]["statistics"]
    bank = search(subject, verdict.bank_statistics, settings)
    seconds = (time.monotonic() - start) / len(seeds)
    backdoor = study.data.corrupted.backdoor
    test = study.data.splits.test
    for index, (seed, trajectory) in enumerate(zip(seeds, trajectories, strict=True)):
        success, targets = None, []
        if backdoor is not None:
            network = trained_network(study.network, study.data, trajectory).to(stages.device)
            attacked = attacked_images(backdoor, test)
            success = accuracy(network, study.data.in_order(attacked))
            targets = attacked.labels.unique().tolist()
        yield Measured(
            attack=attack,
            seed=seed,
            accuracy=bank.accuracies[index],
            success=success,
            targets=targets,
            statistics=torch.stack([values[index] for values in bank.statistics.values()]),
            names=list(bank.statistics),
            seconds=seconds,
        )


def interval(hits: int, trials: int) -> tuple[float, float]:
    """The exact 95 % interval of a rate (Clopper and Pearson 1934)."""
    low = beta.ppf(0.025, hits, trials - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, trials - hits) if hits < trials else 1.0
    return float(low), float(high)


def auroc_interval(clean: Tensor, attacked: Tensor) -> tuple[float, float, float]:
    """The area under the ROC curve, and its 95 % interval by 2,000 bootstrap samples."""

    def area(negatives: Tensor, positives: Tensor) -> float:
        labels = torch.cat([torch.zeros(len(negatives)), torch.ones(len(positives))]).bool()
        return auroc(torch.cat([negatives, positives]), labels)

    generator = stream(0)
    samples = torch.tensor(
        [
            area(
                clean[torch.randint(len(clean), (len(clean),), generator=generator)],
                attacked[torch.randint(len(attacked), (len(attacked),), generator=generator)],
            )
            for _ in range(2000)
        ]
    )
    low, high = samples.quantile(torch.tensor([0.025, 0.975])).tolist()
    return area(clean, attacked), low, high


class Scores:
    """What each rule says of the networks: one number per network, high where suspicious."""

    def __init__(self, bank: Sequence[Measured], networks: Sequence[Measured]) -> None:
        of_bank = torch.stack([network.statistics for network in bank])
        self.comparisons: list[BankComparison] = [
            compare_with_bank(network.statistics, of_bank) for network in networks
        ]
        self.bank = torch.tensor([result.score for result in self.comparisons])
        self.flagged = [result.p <= ALPHA + 1e-9 for result in self.comparisons]
        size = next(i for i, name in enumerate(bank[0].names) if name.endswith("/size"))
        norms = [(-network.statistics[size]).exp() for network in networks]
        indices = [neural_cleanse_index(norm) for norm in norms]
        self.index = torch.tensor([result.value for result in indices])
        self.index_flagged = [result.flagged for result in indices]
        self.raw = torch.tensor([-norm.min().item() for norm in norms])


def rate_text(flags: Sequence[bool]) -> str:
    hits, trials = sum(flags), len(flags)
    low, high = interval(hits, trials)
    return f"{hits} of {trials} ({low:.2f}-{high:.2f})"


def report(bank: Sequence[Measured], tested: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row per attack, and one for all backdoors, against the clean test networks."""
    clean = [network for network in tested if network.attack == "clean"]
    usual = sum(network.accuracy for network in [*bank, *clean]) / (len(bank) + len(clean))
    of_clean = Scores(bank, clean)
    rows: list[dict[str, Any]] = [
        {
            "attack": "clean",
            "networks": len(clean),
            "accuracy": f"{usual:.3f}",
            "p <= 0.05": rate_text(of_clean.flagged),
            "index > 2": rate_text(of_clean.index_flagged),
            "seconds": f"{sum(n.seconds for n in clean) / len(clean):.0f}",
        }
    ]
    counted: list[Measured] = []
    for attack in dict.fromkeys(network.attack for network in tested):
        networks = [network for network in tested if network.attack == attack]
        valid = [
            network
            for network in networks
            if network.success is not None
            and network.success >= SUCCESS
            and network.accuracy >= usual - DROP
        ]
        if attack != "clean":
            rows.append(_row(attack, networks, valid, bank, of_clean))
            counted += [] if attack == "all_to_all" else valid
    if counted:
        rows.append(_row("all with one target", counted, counted, bank, of_clean))
    return rows


def _row(
    attack: str,
    networks: Sequence[Measured],
    valid: Sequence[Measured],
    bank: Sequence[Measured],
    clean: Scores,
) -> dict[str, Any]:
    mean_success = sum(network.success or 0.0 for network in networks) / len(networks)
    row: dict[str, Any] = {
        "attack": attack,
        "networks": f"{len(valid)} of {len(networks)}",
        "attack success": f"{mean_success:.2f}",
    }
    if not valid:
        return row
    scores = Scores(bank, valid)
    area, low, high = auroc_interval(clean.bank, scores.bank)
    right = [
        result.label in network.targets
        for result, network, flag in zip(scores.comparisons, valid, scores.flagged, strict=True)
        if flag
    ]
    return row | {
        "AUROC": f"{area:.3f} ({low:.3f}-{high:.3f})",
        "p <= 0.05": rate_text(scores.flagged),
        "target right": f"{sum(right)} of {len(right)}",
        "AUROC of the index": f"{auroc_interval(clean.index, scores.index)[0]:.3f}",
        "AUROC of the smallest norm": f"{auroc_interval(clean.raw, scores.raw)[0]:.3f}",
        "index > 2": rate_text(scores.index_flagged),
        "seconds": f"{sum(n.seconds for n in valid) / len(valid):.0f}",
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(name, "")) for name in columns) + " |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="digits/verdict")
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--bank", type=int, default=59, help="clean networks to compare with")
    parser.add_argument("--clean", type=int, default=60, help="clean networks to test")
    parser.add_argument("--each", type=int, default=20, help="networks to test for each attack")
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS))
    parser.add_argument("--rate", help="the poisoning rate of all attacks; default: their own")
    parser.add_argument("--store", default="store")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers of every network")
    parser.add_argument("settings", nargs="*", help="further settings, key=value")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    register_resolvers()
    quiet()
    logging.getLogger("cwx").setLevel(logging.WARNING)
    common = [
        f"experiment={chosen.experiment}",
        f"scale={chosen.scale}",
        f"store={chosen.store}",
        "experts.bank.seeds=[]",
        *chosen.settings,
    ]
    plan = [("clean", list(range(BANK, BANK + chosen.bank)))]
    plan.append(("clean", list(range(CLEAN, CLEAN + chosen.clean))))
    seeds = range(BACKDOORED, BACKDOORED + chosen.each)
    plan += [(attack, [seed]) for seed in seeds for attack in chosen.attacks]
    networks: list[Measured] = []
    classes = _classes(common)
    for number, (attack, of_attack) in enumerate(plan):
        settings = corruption(attack, of_attack[0], chosen.rate, classes)
        networks += measure([*common, *settings], attack, of_attack)
        print(f"{number + 1} of {len(plan)}: {attack} {of_attack[0]}", flush=True)
        if chosen.out is not None:
            chosen.out.write_text(json.dumps([_plain(network) for network in networks]))
    bank, tested = networks[: chosen.bank], networks[chosen.bank :]
    print_table(report(bank, tested))


def _classes(overrides: Sequence[str]) -> Sequence[str]:
    composed: Any = compose_checked(
        configuration_folder(), [*overrides, "corruption=none"], multirun=False, extra=None,
        resumed=None,
    )  # fmt: skip
    data = instantiate(composed["data"], _convert_="all")
    data.prepare_data()
    data.setup()
    return data.classes


def _plain(network: Measured) -> dict[str, Any]:
    return {**vars(network), "statistics": network.statistics.tolist()}


if __name__ == "__main__":
    main()
