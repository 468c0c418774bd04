"""How often the verdict detects backdoors, and how often it flags clean networks.

    uv run benchmarks/detection_rates.py --rate 0.1             digits: about 75 minutes on one core
    uv run benchmarks/detection_rates.py --experiment cifar10/verdict --scale small \\
        --bank 39 --clean 20 --each 10 --rate wanet=0.2 adaptive_blend=0.05 all_to_all=0.3 \\
        --out cifar10.json network=convnet network.width=16

Trains clean and backdoored networks of the experiment, searches the statistics of all, and compares
each test network with the bank as `evaluation=[verdict]` does. Targets, places and seeds differ
between the networks. Networks and statistics are kept in the store: a second call continues. The
table is that of `detection_report.py`, which also reads the file that ``--out`` writes. With the
setting 'evaluation=[verdict,poisoned_groups]' the file also holds the statistics of activation
clustering and of spectral signatures, which need the training images; ``detection_report.py
--statistics`` compares them.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detection_report import Network, print_table, report
from hydra.utils import instantiate

from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder, options
from cwx.cli.config.override_text import override
from cwx.cli.config.unchosen import drop_unchosen
from cwx.cli.resolvers import register_resolvers
from cwx.cli.run import quiet
from cwx.data.splits import ImageSet, Source, Splits
from cwx.evaluations.backdoor.attack_success import attacked_images
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


class FewImages:
    """A source with fewer test images, evenly spaced.

    Attributes:
        whole: all test images, after `load`.
    """

    def __init__(self, source: Source, images: int | None) -> None:
        self.source, self.images = source, images
        self.whole: ImageSet | None = None

    def prepare(self) -> None:
        self.source.prepare()

    def load(self) -> Splits:
        splits = self.source.load()
        self.whole = splits.test
        return replace(splits, test=splits.test.spread(self.images))


def measure(
    overrides: Sequence[str], attack: str, seeds: Sequence[int], images: int | None = None
) -> Iterator[Network]:
    """Train the networks of one corruption and search their statistics, unless stored.

    Args:
        images: test images for the searches, at most. The success of the attack is measured on all.
    """
    folder = configuration_folder()
    composed: Any = compose_checked(
        folder, [*overrides, "logger=[]"], multirun=False, extra=None, resumed=None
    )
    composed.pop("optimize", None)
    configuration = drop_unchosen(composed, options([folder]))
    study = instantiate(configuration, _convert_="all")
    source = study.data.source = FewImages(study.data.source, images)
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
    assert source.whole is not None
    for index, (seed, trajectory) in enumerate(zip(seeds, trajectories, strict=True)):
        statistics = {name: values[index].tolist() for name, values in bank.statistics.items()}
        if groups := study.evaluation.get("poisoned_groups"):
            rows = groups(replace(subject, trajectories=[trajectory]), {}).tables["poisoned_groups"]
            for name in ("silhouette", "leading_variance"):
                statistics[f"poisoned_groups/{name}"] = [float(row[name]) for row in rows]
        success, targets = None, []
        if backdoor is not None:
            network = trained_network(study.network, study.data, trajectory).to(stages.device)
            attacked = attacked_images(backdoor, source.whole)
            success = accuracy(network, study.data.in_order(attacked))
            targets = attacked.labels.unique().tolist()
        yield {
            "attack": attack,
            "seed": seed,
            "accuracy": bank.accuracies[index],
            "success": success,
            "targets": targets,
            "statistics": list(statistics.values()),
            "names": list(statistics),
            "seconds": seconds,
        }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="digits/verdict")
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--bank", type=int, default=59, help="clean networks to compare with")
    parser.add_argument("--clean", type=int, default=60, help="clean networks to test")
    parser.add_argument("--each", type=int, default=20, help="networks to test for each attack")
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS))
    parser.add_argument(
        "--rate",
        nargs="*",
        default=[],
        help="poisoning rates: 0.1 for all attacks, wanet=0.2 for one; default: their own",
    )
    parser.add_argument("--images", type=int, help="test images for the searches; default: all")
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
    networks: list[Network] = []
    classes = _classes(common)
    # The rate of all other attacks goes by the empty name.
    rates = {name: rate for name, _, rate in (text.rpartition("=") for text in chosen.rate)}
    for number, (attack, of_attack) in enumerate(plan):
        rate = rates.get(attack, rates.get(""))
        settings = corruption(attack, of_attack[0], rate, classes)
        networks += measure([*common, *settings], attack, of_attack, chosen.images)
        print(f"{number + 1} of {len(plan)}: {attack} {of_attack[0]}", flush=True)
        if chosen.out is not None:
            chosen.out.write_text(json.dumps(networks))
    bank, tested = networks[: chosen.bank], networks[chosen.bank :]
    names = bank[0]["names"]
    compared = [i for i, name in enumerate(names) if not name.startswith("poisoned_groups/")]
    rows, _ = report(bank, tested, compared)
    print_table(rows)


def _classes(overrides: Sequence[str]) -> Sequence[str]:
    composed: Any = compose_checked(
        configuration_folder(), [*overrides, "corruption=none"], multirun=False, extra=None,
        resumed=None,
    )  # fmt: skip
    data = instantiate(composed["data"], _convert_="all")
    data.prepare_data()
    data.setup()
    return data.classes


if __name__ == "__main__":
    main()
