"""`cwx inspect`: a study of somebody else's network, from a file of weights and a folder of images.

The command finds the settings of `experiment=inspect`, and runs that study.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cwx.cli.commands.bank_files import bank_files
from cwx.cli.commands.inspect_results import (
    FAILURE,
    describe_results,
    read_results,
    verdict,
)
from cwx.cli.config.home import expand_home
from cwx.cli.parser import Parser, program_name
from cwx.cli.tables import print_remark, print_text, table
from cwx.errors import UserError, printable

if TYPE_CHECKING:
    from cwx.study.inspection import Inspection

# The exit status of a refusal.
REFUSED = 2
# The exit status of a study that ends with the verdict "suspicious".
SUSPICIOUS = 3


def parser() -> Parser:
    name = f"{program_name()} inspect"
    arguments = Parser(
        "inspect",
        does="Explain a network from its weights and a folder of images, one folder per class.\n"
        "Architecture, size, normalisation and order of the classes are found on the images.",
        examples=f"""  {name} model.pt images/
  {name} model.pt images/ --network torchvision.models.resnet18 --classes classes.txt
  {name} models/*.pt images/ --minutes 5          several networks, as a sweep
  {name} model.pt images/ --cfg job               the study, without running it
  {name} model.pt images/ method.iscp.passes=10   any setting of experiment=inspect

exit status: 0 if the study has finished, {SUSPICIOUS} if its verdict is "suspicious",
{REFUSED} for a refusal with its reason, {FAILURE} if one of several studies fails and none is
suspicious.""",
    )
    arguments.add_argument(
        "paths",
        nargs="+",
        metavar="weights images | key=value",
        help="files of weights (or folders with a model.safetensors and a config.json), then the "
        "folder of the images; settings of the study",
    )
    arguments.add_argument(
        "--network", metavar="MODULE.NAME", help="the function or class that builds the network"
    )
    arguments.add_argument(
        "--classes", metavar="FILE", type=Path, help="the name of each output, one per line"
    )
    arguments.add_argument("--mean", metavar="M[,M,M]", type=_numbers, help="of pixels in 0-1")
    arguments.add_argument("--std", metavar="S[,S,S]", type=_numbers, help="of pixels in 0-1")
    arguments.add_argument("--size", metavar="PIXELS", type=int, help="the side of the images")
    arguments.add_argument(
        "--resize", metavar="PIXELS", type=int, help="the shorter side before the central crop"
    )
    arguments.add_argument(
        "--bank",
        metavar="FOLDER | FILE",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        help="19 or more clean networks of the same architecture, data and recipe, to compare with",
    )
    arguments.add_argument(
        "--minutes", metavar="N", type=float, default=10.0, help="the time of a study (10)"
    )
    arguments.add_argument(
        "--trust-pickle",
        action="store_true",
        help="run the code in a file that is a whole pickled network, in a process of its own",
    )
    arguments.add_argument(
        "--import-path",
        metavar="FOLDER",
        type=Path,
        help="where the module of --network, or the classes of a pickled network, are (the folder "
        "of the weights)",
    )
    arguments.add_argument("--json", action="store_true", help="the result as JSON, for programs")
    arguments.add_argument(
        "--cfg", choices=["job", "hydra", "all"], help="print the study instead of running it"
    )
    return arguments


def main(argv: Sequence[str]) -> None:
    """Find the settings, run the study and print the main result.

    Exits with status 2 after a message if a file, the images or a setting is refused.
    """
    try:
        _main(argv)
    except (ValueError, OSError) as error:
        _refuse(error)
    except SystemExit as error:
        # A refusal of the study itself is a text.
        if isinstance(error.code, str):
            _refuse(error.code.removeprefix("cwx: "))
        raise


def _refuse(reason: object) -> NoReturn:
    print_remark(" ".join(str(reason).split()))
    sys.exit(REFUSED)


def _main(argv: Sequence[str]) -> None:
    arguments = parser().parse_intermixed_args(argv)
    words = [word for word in arguments.paths if "=" in word and not Path(word).exists()]
    paths = [Path(word) for word in arguments.paths if word not in words]
    overrides = expand_home(words)
    if len(paths) < 2:
        raise UserError(
            "name a file of weights and a folder of images, as in "
            f"{program_name()} inspect model.pt images/"
        )
    *weights, images = paths
    if not arguments.minutes > 0:
        raise UserError(f"--minutes is {arguments.minutes:g}: give a time above 0")
    if (arguments.mean is None) != (arguments.std is None):
        raise UserError("--mean and --std belong together: give both")
    if arguments.resize is not None and arguments.size is None:
        raise UserError("--resize needs --size: give both")
    if arguments.cfg and len(weights) > 1:
        raise UserError(f"--cfg is for one file of weights: leave out the other {len(weights) - 1}")
    # Standard output is for the JSON alone.
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        bank = _bank(arguments, _store(overrides))
        inspections = [_inspection(arguments, path, images, overrides, bank) for path in weights]
        if len(weights) == 1:
            folder = _run(arguments, inspections[0], overrides)
            failed = False
        else:
            from cwx.cli.commands.inspect_sweep import run_sweep

            folder, failed = run_sweep(weights, inspections, overrides, _study)
    if folder is None:
        return
    runs = read_results(folder, weights)
    verdicts = [verdict(run) for run in runs]
    if arguments.json:
        results = describe_results(runs, verdicts, weights, inspections)
        print_text(json.dumps(results, indent=2))
    if any(row.get("verdict") == "suspicious" for row in verdicts):
        sys.exit(SUSPICIOUS)
    if failed:
        sys.exit(FAILURE)


def _inspection(
    arguments: argparse.Namespace,
    weights: Path,
    images: Path,
    overrides: Sequence[str],
    bank: Sequence[Path],
) -> "Inspection":
    # Torch takes seconds to import.
    from cwx.study.inspection import Request, inspect, trusted_weights
    from cwx.training.importing.usage import Stated

    if arguments.trust_pickle:
        weights = trusted_weights(weights, _store(overrides), arguments.import_path)
    print_remark(f"{printable(weights)}: comparing the usual ways to use these weights")
    inspection = inspect(
        Request(
            weights=weights,
            images=images,
            network=arguments.network,
            classes=arguments.classes,
            stated=Stated(
                mean=arguments.mean, std=arguments.std, size=arguments.size,
                resize=arguments.resize,
            ),
            minutes=arguments.minutes,
            import_path=arguments.import_path,
            bank=bank,
        )
    )  # fmt: skip
    if inspection.ways and not arguments.cfg:
        columns = list(inspection.ways[0])
        rows = [[way[column] for column in columns] for way in inspection.ways]
        print_text(table(columns, rows, shrink=0))
    for note in inspection.notes:
        print_remark(note)
    print_remark(f"estimated time: {inspection.minutes:.2g} minutes")
    return inspection


def _bank(arguments: argparse.Namespace, store: Path) -> list[Path]:
    """The files of the bank; of whole pickled networks that the user trusts, their weights."""
    files = bank_files(arguments.bank)
    if not (files and arguments.trust_pickle):
        return files
    # Torch takes seconds to import.
    from cwx.storage.refusals import CodeNeededError
    from cwx.study.inspection import trusted_weights
    from cwx.training.importing.weights_file import read_weights

    for index, file in enumerate(files):
        try:
            read_weights(file)
        except CodeNeededError:
            print_remark(f"{printable(file)}: taking the weights out of a pickled network")
            files[index] = trusted_weights(file, store, arguments.import_path)
    return files


def _store(overrides: Sequence[str]) -> Path:
    from cwx.cli.config.override_text import parse_override

    # The value of a setting may be quoted.
    names = [parse_override(word).value() for word in overrides if word.startswith("store=")]
    return Path(str(names[-1]) if names else "store")


def _run(
    arguments: argparse.Namespace, inspection: "Inspection", overrides: Sequence[str]
) -> Path | None:
    """Run the study, and return its folder; ``None`` if the study is only printed."""
    from cwx.cli.config.override_text import override

    settings = [
        ("+" if _is_argument(key) else "") + override(key, value)
        for key, value in inspection.settings.items()
    ]
    command = ["experiment=inspect", *settings, *overrides]
    if inspection.import_path is not None:
        # Cwx imports modules from a configuration folder, also when the run is resumed.
        command = ["--config-dir", str(inspection.import_path), *command]
    if arguments.cfg:
        _study([*command, "--cfg", arguments.cfg])
        return None
    return _study(command)


def _is_argument(key: str) -> bool:
    """Whether a setting is an argument of the function that builds the network."""
    return key.startswith("network.build.") and not key.endswith("._target_")


def _study(command: Sequence[str]) -> Path | None:
    from cwx.cli.run import main as run_study

    with _arguments(command):
        return run_study()


@contextlib.contextmanager
def _arguments(command: Sequence[str]) -> Iterator[None]:
    """The command line of this process is `command`, as Hydra reads it from there."""
    earlier = sys.argv
    sys.argv = [earlier[0], *command]
    try:
        yield
    finally:
        sys.argv = earlier


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]
