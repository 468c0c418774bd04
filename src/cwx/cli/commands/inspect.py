"""`cwx inspect`: a study of somebody else's network, from a file of weights and a folder of images.

The command finds the settings of `experiment=inspect`, and runs that study.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cwx.cli.commands.bank_files import bank_files
from cwx.cli.commands.inspect_results import describe_results, read_results, verdict
from cwx.cli.parser import Parser, program_name
from cwx.cli.tables import print_remark, print_text, table
from cwx.errors import UserError, printable
from cwx.storage.atomic import write_text

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
{REFUSED} for a refusal with its reason.""",
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
    overrides = [word for word in arguments.paths if "=" in word and not Path(word).exists()]
    paths = [Path(word) for word in arguments.paths if word not in overrides]
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
        inspections = [_inspection(arguments, path, images, overrides) for path in weights]
        if len(weights) == 1:
            folder = _run(arguments, inspections[0], overrides)
        else:
            folder = _sweep(weights, inspections, overrides)
    if folder is None:
        return
    runs = read_results(folder, weights)
    verdicts = [verdict(run) for run in runs]
    if arguments.json:
        results = describe_results(runs, verdicts, weights, inspections)
        print_text(json.dumps(results, indent=2))
    if any(row.get("verdict") == "suspicious" for row in verdicts):
        sys.exit(SUSPICIOUS)


def _inspection(
    arguments: argparse.Namespace, weights: Path, images: Path, overrides: Sequence[str]
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
            bank=bank_files(arguments.bank),
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


def _sweep(
    weights: Sequence[Path],
    inspections: Sequence["Inspection"],
    overrides: Sequence[str],
) -> Path | None:
    """Run a sweep over the files of weights, and return its folder.

    Each file has its own settings: an option of a configuration group beside the sweep.
    """
    folder = Path("runs/inspect") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    configurations = folder.with_name(f"{folder.name}.settings")
    group = configurations / "inspected"
    group.mkdir(parents=True)
    names = []
    for index, (path, inspection) in enumerate(zip(weights, inspections, strict=True)):
        names.append(f"{index}-{_plain(path.stem)}")
        write_text(group / f"{names[-1]}.yaml", _yaml(inspection.settings))
    command = [
        "--config-dir", str(configurations), "experiment=inspect", f"+inspected={','.join(names)}",
        f"hydra.sweep.dir={folder}", *overrides,
    ]  # fmt: skip
    paths = {str(found.import_path.resolve()) for found in inspections if found.import_path}
    if paths:
        # Jobs are processes of their own.
        earlier = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([*([earlier] if earlier else []), *paths])
    _study(["--multirun", *command])
    return folder


def _plain(name: str) -> str:
    """A file's name in letters that are safe in a setting."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:60]


def _yaml(settings: Mapping[str, Any]) -> str:
    """Settings as an option of a configuration group."""
    from omegaconf import OmegaConf

    from cwx.cli.config.override_text import override

    choices = {key: value for key, value in settings.items() if key in ("method", "evaluation")}
    rest = {key: value for key, value in settings.items() if key not in (*choices, "network")}
    config = OmegaConf.create()
    for key, value in rest.items():
        # Refuses interpolations.
        override(key, value)
        OmegaConf.update(config, key, value)
    defaults: list[Any] = [{f"override /{key}": value} for key, value in choices.items()]
    if "network" in settings:
        defaults.append({"override /network": settings["network"]})
    head = OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]}))
    return f"# @package _global_\n{head}{OmegaConf.to_yaml(config)}"


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
