"""`cwx agreement`: compares LC with volunteers' answers about pairs of neurons."""

import json
from collections.abc import Sequence
from os.path import lexists
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from cwx.cli.parser import Parser, existing_directory, program_name
from cwx.cli.tables import Cell, print_text, table
from cwx.errors import UserError, printable
from cwx.storage.neuron_pairs import PAIRS, STATISTICS, PairStudy, read_pair_study
from cwx.storage.pair_answers import Answers, read_answers
from cwx.storage.run_folders import read_fault

if TYPE_CHECKING:
    from cwx.evaluations.neuron_pairs.agreement import (
        Proportion,
        StatisticAgreement,
        VolunteerAgreement,
    )

# Dong et al., Appendix B: LC and each of five volunteers, in per cent.
PAPER = (83.65, 85.75, 86.6, 88.6, 86.95)
_NAMES = {
    "lc": "LC",
    "largest_fraction": "fraction of the most frequent class",
    "negative_entropy": "negative entropy of the classes",
    "depth": "position of the layer",
}


def parser() -> Parser:
    name = f"{program_name()} agreement"
    arguments = Parser(
        "agreement",
        does="Compare LC with people's answers about pairs of neurons: how often the neuron that\n"
        "a volunteer judged to have the higher level of concept has the higher LC. The run needs\n"
        "evaluation=[neuron_pairs]; its page neuron_pairs.html saves the answers.",
        examples=f"""  {name} runs/cifar10/neurons/2026-11-21_10-06-09 answers-*.json
  {name} runs/cifar10/neurons/2026-11-21_10-06-09 answers-anna.json answers-bert.json
  {name} runs/cifar10/neurons/2026-11-21_10-06-09 answers-anna.json --json > agreement.json""",
    )
    arguments.add_argument("folder", help="of the run that made the pairs")
    arguments.add_argument(
        "answers", nargs="+", metavar="answers.json", help="files that the page saved"
    )
    arguments.add_argument("--json", action="store_true", help="as JSON, for programs")
    return arguments


def main(argv: Sequence[str]) -> None:
    """Print the agreement.

    Raises:
        UserError: the run has no pairs, or a file has no answers about them.
    """
    arguments = parser().parse_intermixed_args(argv)
    study = _study(existing_directory(arguments.folder))
    files = [Path(name) for name in arguments.answers]
    volunteers = _distinct(files, [read_answers(file, study) for file in files])
    # Imports scipy and scikit-learn, which takes a second that refusals do not need.
    from cwx.evaluations.neuron_pairs.agreement import (
        mean_kappa,
        statistic_agreement,
        volunteer_agreement,
    )

    rows = [volunteer_agreement(answers, study) for answers in volunteers]
    statistics = [statistic_agreement(name, volunteers, study) for name in STATISTICS]
    kappa = mean_kappa(volunteers, study)
    if arguments.json:
        print_text(json.dumps(_as_json(rows, statistics, kappa), indent=2))
    else:
        print_text(_as_text(rows, statistics, kappa, study))


def _study(folder: Path) -> PairStudy:
    if not lexists(folder / PAIRS):
        raise UserError(
            f"{printable(folder)} has no pairs of neurons ({PAIRS}): name a run with "
            "evaluation=[neuron_pairs]"
        )
    try:
        return read_pair_study(folder)
    except OSError as error:
        raise UserError(printable(read_fault(error, str(error.filename or folder)))) from error


def _distinct(files: Sequence[Path], volunteers: Sequence[Answers]) -> Sequence[Answers]:
    """The answers, if no volunteer is there twice.

    Raises:
        UserError: two files have the same name of a volunteer.
    """
    by_name: dict[str, Path] = {}
    for file, answers in zip(files, volunteers, strict=True):
        earlier = by_name.setdefault(answers.volunteer, file)
        if earlier is not file:
            raise UserError(
                f"{printable(earlier)} and {printable(file)} are both of the volunteer "
                f"{printable(answers.volunteer)}: give the last file of each volunteer alone"
            )
    return volunteers


def _as_text(
    rows: "Sequence[VolunteerAgreement]",
    statistics: "Sequence[StatisticAgreement]",
    kappa: float | None,
    study: PairStudy,
) -> str:
    header = [
        "volunteer", "answers", "cannot/say", "equal/LC", "LC agrees/%", "95 %/interval",
        "smallest/ΔLC %", "middle/ΔLC %", "largest/ΔLC %", "consistent/%", "repeated/pairs",
        "seconds",
    ]  # fmt: skip
    body: list[list[Cell]] = [
        [
            row.volunteer, row.answered, row.cannot_say, row.ties, _percent(row.agreement),
            _interval(row.agreement), *map(_percent, row.tertiles), _percent(row.consistency),
            row.consistency.trials, row.seconds,
        ]
        for row in rows
    ]  # fmt: skip
    values = [row.agreement.value for row in rows if row.agreement.value is not None]
    if len(rows) > 1 and values:
        body.append(["mean", None, None, None, round(100 * mean(values), 2), *[None] * 7])
    pairs = sum(pair.repeats is None for pair in study.pairs.values())
    lines = [
        table(header, body, shrink=0),
        "",
        f"LC agrees: of {pairs} pairs, those answered by a side whose neurons differ in LC. Chance "
        "is 50 %.",
        f"Dong et al., Appendix B: {min(PAPER)} to {max(PAPER)} %, mean {mean(PAPER):.2f} %, of "
        "five volunteers and 2000 pairs of VGG-16.",
        "The intervals (Wilson) take answers as independent.",
        _kappa_line(kappa, len(rows)),
        "",
        table(
            ["statistic", "agrees/%", "95 %/interval", "equal", "LC on the/same %",
             "they/disagree", "LC is right/%", "95 %/interval"],
            [_statistic_row(statistic) for statistic in statistics],
            shrink=0,
        ),
        "",
        "All volunteers together. Where a statistic and LC disagree, above 50 % speaks for LC.",
    ]  # fmt: skip
    return "\n".join(lines)


def _kappa_line(kappa: float | None, volunteers: int) -> str:
    if kappa is not None:
        return (
            f"Agreement between volunteers: mean Cohen's kappa {kappa:.2f} (0: chance, 1: equal)."
        )
    if volunteers < 2:
        return "Agreement between volunteers: needs two volunteers or more."
    return "Agreement between volunteers: unknown, they have no pairs with both sides in common."


def _statistic_row(row: "StatisticAgreement") -> list[Cell]:
    name, first = _NAMES[row.name], [_percent(row.agreement), _interval(row.agreement), row.ties]
    if row.name == "lc":
        return [name, *first, *[None] * 4]
    part = row.disagreement
    return [name, *first, _percent(row.lc), part.trials, _percent(part), _interval(part)]


def _percent(proportion: "Proportion") -> float | None:
    return None if proportion.value is None else round(100 * proportion.value, 2)


def _interval(proportion: "Proportion") -> str:
    interval = proportion.interval
    return "" if interval is None else f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}"


def _as_json(
    rows: "Sequence[VolunteerAgreement]",
    statistics: "Sequence[StatisticAgreement]",
    kappa: float | None,
) -> dict[str, Any]:
    values = [row.agreement.value for row in rows if row.agreement.value is not None]
    return {
        "volunteers": [
            {
                "volunteer": row.volunteer,
                "answered": row.answered,
                "cannot_say": row.cannot_say,
                "equal_lc": row.ties,
                "agreement": _proportion_json(row.agreement),
                "tertiles": [_proportion_json(part) for part in row.tertiles],
                "consistency": _proportion_json(row.consistency),
                "median_seconds": row.seconds,
            }
            for row in rows
        ],
        "mean_agreement": mean(values) if values else None,
        "mean_kappa": kappa,
        "statistics": [
            {
                "statistic": row.name,
                "equal": row.ties,
                "agreement": _proportion_json(row.agreement),
                "lc_on_the_same": _proportion_json(row.lc),
                "lc_right_where_they_disagree": _proportion_json(row.disagreement),
            }
            for row in statistics
        ],
        "chance": 0.5,
        "paper": [round(value / 100, 4) for value in PAPER],
    }


def _proportion_json(proportion: "Proportion") -> dict[str, Any]:
    return {
        "successes": proportion.successes,
        "trials": proportion.trials,
        "value": proportion.value,
        "interval": proportion.interval,
    }
