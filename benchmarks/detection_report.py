"""Rates of the verdict on networks of known history, which `detection_rates.py` has measured.

    uv run benchmarks/detection_report.py digits.json --bank 59 --name "digits, ConvNet 2x32" \\
        --csv src/cwx/evaluations/verdict/measured_rates.csv --figure digits.png

Prints for each attack the area under the ROC curve with its 95 % bootstrap interval, the rate of
p <= 0.05 with its exact 95 % interval, and the rate of the right class among those. A network
counts if its attack succeeds on 90 % of the test images and its accuracy is at most 2 points below
the mean of the clean networks; attacks that succeed on 30 to 90 %, or cost more accuracy, are
reported apart. Beside it are the rules of Neural Cleanse: the anomaly index, and the smallest mask
norm as it is. ``--csv`` replaces the rows of this name in the file that pages of verdicts show.
"""

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt
import torch
from scipy.stats import beta
from torch import Tensor

from cwx.functional.auroc import auroc
from cwx.functional.bank_comparison import BankComparison, compare_with_bank
from cwx.functional.neural_cleanse_index import neural_cleanse_index
from cwx.functional.rng import stream

ALPHA, SUCCESS, PARTIAL_SUCCESS, DROP = 0.05, 0.9, 0.3, 0.02
DIVISIONS = 200

Network = Mapping[str, Any]
Row = dict[str, Any]


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


def _statistics(networks: Sequence[Network], chosen: Sequence[int]) -> Tensor:
    values = [torch.tensor(network["statistics"], dtype=torch.float64) for network in networks]
    return torch.stack(values)[:, list(chosen)]


class Scores:
    """What each rule says of the networks: one number per network, high where suspicious.

    Args:
        chosen: the indices of the statistics that are compared with the bank.
    """

    def __init__(
        self, bank: Sequence[Network], networks: Sequence[Network], chosen: Sequence[int]
    ) -> None:
        of_bank = _statistics(bank, chosen)
        self.comparisons: list[BankComparison] = [
            compare_with_bank(values, of_bank) for values in _statistics(networks, chosen)
        ]
        self.bank = torch.tensor([result.score for result in self.comparisons])
        self.flagged = [result.p <= ALPHA + 1e-9 for result in self.comparisons]
        size = next(i for i, name in enumerate(bank[0]["names"]) if name.endswith("/size"))
        norms = (-_statistics(networks, [size])[:, 0]).exp()
        indices = [neural_cleanse_index(norm) for norm in norms]
        self.index = torch.tensor([result.value for result in indices])
        self.index_flagged = [result.flagged for result in indices]
        self.raw = -norms.amin(1)
        self.right = [
            result.label in network["targets"]
            for result, network in zip(self.comparisons, networks, strict=True)
        ]


def rate_text(flags: Sequence[bool]) -> str:
    hits, trials = sum(flags), len(flags)
    low, high = interval(hits, trials)
    return f"{hits} of {trials} ({low:.2f}-{high:.2f})"


def divisions(clean: Sequence[Network], bank: int, chosen: Sequence[int]) -> Tensor:
    """The rates of flagged clean networks for random divisions into bank and test networks."""
    values, generator = _statistics(clean, chosen), stream(0)
    rates = []
    for _ in range(DIVISIONS):
        order = torch.randperm(len(clean), generator=generator)
        of_bank = values[order[:bank]]
        flags = [compare_with_bank(values[i], of_bank).p <= ALPHA + 1e-9 for i in order[bank:]]
        rates.append(fmean(flags))
    return torch.tensor(rates)


def report(
    bank: Sequence[Network], tested: Sequence[Network], chosen: Sequence[int]
) -> tuple[list[Row], dict[str, Scores]]:
    """A row per attack, and one for all backdoors with one target; and the scores of each group."""
    clean = [network for network in tested if network["attack"] == "clean"]
    usual = fmean(network["accuracy"] for network in [*bank, *clean])
    of_clean = Scores(bank, clean, chosen)
    other = divisions([*bank, *clean], len(bank), chosen)
    low, high = other.quantile(torch.tensor([0.025, 0.975])).tolist()
    rows: list[Row] = [
        {
            "attack": "clean",
            "networks": len(clean),
            "accuracy": f"{usual:.3f}",
            "p <= 0.05": rate_text(of_clean.flagged),
            "other divisions": f"{float(other.mean()):.3f} ({low:.2f}-{high:.2f})",
            "index > 2": rate_text(of_clean.index_flagged),
        }
    ]
    groups = {"clean": of_clean}

    def add(name: str, networks: Sequence[Network]) -> None:
        groups[name] = Scores(bank, networks, chosen)
        rows.append(_row(name, networks, groups[name], of_clean))

    counted: list[Network] = []
    for attack in dict.fromkeys(n["attack"] for n in tested if n["attack"] != "clean"):
        of_attack = [network for network in tested if network["attack"] == attack]
        valid = [n for n in of_attack if n["success"] >= SUCCESS and _is_accurate(n, usual)]
        weak = [n for n in of_attack if n["success"] >= PARTIAL_SUCCESS and n not in valid]
        if valid:
            add(attack, valid)
        if weak:
            add(f"{attack}, weak", weak)
        left_out = len(of_attack) - len(valid) - len(weak)
        if left_out:
            rows.append({"attack": f"{attack}, failed", "networks": left_out})
        counted += [n for n in valid if len(n["targets"]) == 1]
    if counted:
        add("all with one target", counted)
    return rows, groups


def _is_accurate(network: Network, usual: float) -> bool:
    return bool(network["accuracy"] >= usual - DROP)


def _row(name: str, networks: Sequence[Network], scores: Scores, clean: Scores) -> Row:
    area, low, high = auroc_interval(clean.bank, scores.bank)
    right = [right for right, flag in zip(scores.right, scores.flagged, strict=True) if flag]
    # With a target for each class, every class is right.
    has_one_target = all(len(network["targets"]) == 1 for network in networks)
    return {
        "attack": name,
        "networks": len(networks),
        "accuracy": f"{fmean(n['accuracy'] for n in networks):.3f}",
        "attack success": f"{fmean(n['success'] for n in networks):.2f}",
        "AUROC": f"{area:.3f} ({low:.3f}-{high:.3f})",
        "p <= 0.05": rate_text(scores.flagged),
        "right class": f"{sum(right)} of {len(right)}" if has_one_target else "",
        "right class of all": f"{sum(scores.right)} of {len(networks)}" if has_one_target else "",
        "index > 2": rate_text(scores.index_flagged),
        "AUROC of the index": f"{auroc_interval(clean.index, scores.index)[0]:.3f}",
        "AUROC of the smallest norm": f"{auroc_interval(clean.raw, scores.raw)[0]:.3f}",
    }


def print_table(rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(name, "")) for name in columns) + " |")


def write_csv(file: Path, name: str, rows: Sequence[Row]) -> None:
    """Replace the rows of `name` in the file of the measured rates."""
    old: list[dict[str, str]] = []
    if file.exists():
        with file.open(newline="", encoding="utf-8") as opened:
            old = [row for row in csv.DictReader(opened) if row["measured_on"] != name]
    new = [
        {
            "measured_on": name,
            "networks": row["attack"],
            "attack_success": row.get("attack success", ""),
            "flagged": row["p <= 0.05"],
            "right_class": row.get("right class", ""),
            "flagged_by_other_banks": row.get("other divisions", ""),
        }
        for row in rows
        if "p <= 0.05" in row
    ]
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, fieldnames=list(new[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*old, *new])


def draw(file: Path, groups: Mapping[str, Scores]) -> None:
    """The ROC curves of the verdict and of the rules within one network, all attacks together."""
    clean, attacked = groups["clean"], groups["all with one target"]
    rules: dict[str, Callable[[Scores], Tensor]] = {
        "verdict (bank)": lambda scores: scores.bank,
        "smallest norm": lambda scores: scores.raw,
        "anomaly index": lambda scores: scores.index,
    }
    figure, axes = plt.subplots(figsize=(4.2, 4.2), layout="constrained")
    for name, values in rules.items():
        thresholds = torch.cat([values(clean), values(attacked)]).unique().flip(0)
        negative, positive = (
            [0.0, *(float((values(group) >= t).double().mean()) for t in thresholds)]
            for group in (clean, attacked)
        )
        area = auroc_interval(values(clean), values(attacked))[0]
        axes.step(negative, positive, where="post", label=f"{name}: {area:.3f}")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set(xlabel="clean networks flagged", ylabel="backdoored networks flagged")
    axes.legend(loc="lower right", title="area under the curve")
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the JSON file of detection_rates.py --out")
    parser.add_argument("--bank", type=int, required=True, help="the first clean networks of it")
    parser.add_argument("--statistics", nargs="*", help="compare these alone; default: all")
    parser.add_argument("--name", default="", help="of the images and the networks, for --csv")
    parser.add_argument("--csv", type=Path, help="the file of the measured rates")
    parser.add_argument("--figure", type=Path, help="a file for the ROC curves")
    chosen = parser.parse_args()
    networks: list[Network] = json.loads(chosen.file.read_text())
    names = networks[0]["names"]
    wanted = [names.index(name) for name in chosen.statistics or names]
    clean = sorted(
        (network for network in networks if network["attack"] == "clean"),
        key=lambda network: network["seed"],
    )
    bank = clean[: chosen.bank]
    tested = [*clean[chosen.bank :], *(n for n in networks if n["attack"] != "clean")]
    rows, groups = report(bank, tested, wanted)
    print_table(rows)
    if chosen.csv is not None:
        write_csv(chosen.csv, chosen.name, rows)
    if chosen.figure is not None:
        draw(chosen.figure, groups)


if __name__ == "__main__":
    main()
