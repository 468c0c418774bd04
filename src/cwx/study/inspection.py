"""The settings of a study of somebody else's network: `experiment=inspect`.

What the file of weights and the folder of images do not say is found out on the images.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cwx.data.datasets.class_folders import files_by_class
from cwx.data.datasets.folder_preview import FolderPreview
from cwx.data.datasets.folders import ClassFolders, read_names
from cwx.data.output_names import OutputNames, output_names
from cwx.errors import UserError, printable
from cwx.functional.accuracy_tests import chance_needs
from cwx.study.inspection_budget import budget
from cwx.study.inspection_notes import image_notes, usage_notes
from cwx.study.poisoned_test import poisoned_test_note
from cwx.study.unsupported_parts import unsupported_parts
from cwx.training.importing.architecture import Architecture
from cwx.training.importing.checkpoint import network_state
from cwx.training.importing.file_usage import find_usage
from cwx.training.importing.fitting_architectures import fitting_architectures
from cwx.training.importing.named_architecture import lies_in
from cwx.training.importing.trusted_pickle import trusted_state
from cwx.training.importing.usage import Stated, Usage, UsageSearch
from cwx.training.importing.ways import Way
from cwx.training.importing.weights_file import WeightsFile, read_weights

log = logging.getLogger(__name__)

# Folders of a data set whose test images are in one of their subfolders.
_TEST_FOLDERS = ("test", "val", "valid", "validation")
_SPLITS = {*_TEST_FOLDERS, "train", "training"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks to inspect.

    Attributes:
        weights: a file, or a folder with a file of weights and its description.
        images: the folder of images.
        network: the import path of a function or class that builds the network; ``None`` to
            recognise it.
        classes: a text file with the names of all outputs; ``None`` to find their order.
        stated: the size and the normalisation of the images, where they are known.
        minutes: the time for the study.
        import_path: the folder of the module of `network`; ``None`` for that of the weights.
        bank: files of clean networks of the same architecture to compare with.
    """

    weights: Path
    images: Path
    network: str | None = None
    classes: Path | None = None
    stated: Stated = field(default_factory=Stated)
    minutes: float = 10.0
    import_path: Path | None = None
    bank: Sequence[Path] = ()


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The settings that were found.

    Attributes:
        settings: of the study, by key.
        ways: the ways to use the weights that were compared, as rows of a table.
        minutes: the estimated time of the study.
        import_path: a folder that the study needs to import its network from; ``None`` for none.
    """

    settings: Mapping[str, Any]
    ways: Sequence[Mapping[str, Any]]
    minutes: float
    import_path: Path | None = None

    @property
    def notes(self) -> Sequence[str]:
        """What was found, in sentences; also for the page."""
        notes: Sequence[str] = self.settings["notes"]
        return notes


def inspect(request: Request) -> Inspection:
    """Find the settings for a file of weights and a folder of images.

    Raises:
        UserError, ValueError: a file cannot be read, no architecture fits the weights, the classes
            of the outputs are unknown, or the network is at chance on the images.
    """
    root = _class_root(request.images)
    folders = sorted(files_by_class(root, "name a folder with one folder of images per class"))
    if len(folders) < 2:
        raise UserError(
            f"{printable(root)} has one class, {printable(folders[0])}: the images need one folder "
            "for each of two classes or more"
        )
    weights = read_weights(request.weights)
    architectures = fitting_architectures(
        request.network, weights, _import_folder(request, weights)
    )
    names, networks = _networks(request, weights, architectures, folders)
    source = ClassFolders(
        root=str(root),
        classes=list(names.names),
        size=None,
        resize=None,
        interpolation=weights.words.get("interpolation"),
        channels=networks[0][0].channels,
        background=None,
        white_level=None,
        images=None,
        synsets=None,
    )
    folder = FolderPreview(source)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    usage, stated = find_usage(
        UsageSearch(
            architectures=networks,
            folder=folder,
            states_order=names.is_known,
            words=weights.words,
            stated=request.stated,
            device=device,
        )
    )
    if usage.is_at_chance:
        raise UserError(_at_chance(request, usage, folder))
    found = usage.way.architecture.settings
    network = next(net for architecture, net in networks if architecture.settings == found)
    poisoned = poisoned_test_note(weights.path, source, network, usage.way, device)
    remarks = [remark for remark in (stated, poisoned) if remark is not None]
    return _inspection(request, weights, root, names, folder, usage, network, remarks)


def trusted_weights(path: Path, store: Path, import_path: Path | None) -> Path:
    """The weights of a whole pickled network, which the user trusts, as a file in the store.

    Raises:
        ValueError: the file does not hold a network, or needs classes that are not installed.
    """
    return trusted_state(path, store / "trusted", import_path)


def _class_root(images: Path) -> Path:
    """The folder with a folder for each class: of the test images, if there are splits."""
    if not images.is_dir():
        kind = "a file, not a folder" if images.exists() else "not there"
        raise UserError(f"{printable(images)} is {kind}: name the folder of the images")
    subfolders = {path.name.lower(): path for path in images.iterdir() if path.is_dir()}
    if subfolders and subfolders.keys() <= _SPLITS:
        for name in _TEST_FOLDERS:
            if name in subfolders:
                return subfolders[name]
        return next(iter(subfolders.values()))
    return images


def _import_folder(request: Request, weights: WeightsFile) -> Path:
    return request.import_path or weights.path.parent


def _networks(
    request: Request,
    weights: WeightsFile,
    architectures: Sequence[Architecture],
    folders: Sequence[str],
) -> tuple[OutputNames, list[tuple[Architecture, nn.Module]]]:
    """The names of the outputs, and the networks of the architectures with their weights."""
    classes = architectures[0].classes
    if request.classes is not None:
        stated = read_names(request.classes)
        if len(stated) != classes:
            raise UserError(
                f"{printable(request.classes)} names {len(stated)} classes, but the network has "
                f"{classes} outputs: give a line for each output"
            )
        names = OutputNames(stated, True, f"as in {request.classes.name}")
    else:
        names = output_names(folders, classes, weights.words.get("classes"))
    networks: list[tuple[Architecture, nn.Module]] = []
    state: dict[str, Tensor] | None = None
    for architecture in architectures:
        side = architecture.image_size or architecture.likely_size or 224
        network = architecture.factory(
            in_channels=architecture.channels, image_size=(side, side), num_classes=classes
        )
        # All have tensors of the same names and shapes.
        state = state or network_state(weights, network.state_dict())
        network.load_state_dict(state)
        networks.append((architecture, network.eval()))
    return names, networks


def _inspection(
    request: Request,
    weights: WeightsFile,
    root: Path,
    names: OutputNames,
    folder: FolderPreview,
    usage: Usage,
    network: nn.Module,
    remarks: Sequence[str],
) -> Inspection:
    way = usage.way
    side = way.size or folder.side or 224
    unsupported = unsupported_parts(network, (way.architecture.channels, side, side))
    limits = budget(
        request.minutes,
        seconds=max(usage.seconds, 1e-6),
        present=folder.present,
        classes=len(folder.classes),
        images=len(folder),
        side=side,
        unsupported=unsupported,
    )
    order = way.order or (names.names if names.is_known else None)
    import_folder = _import_folder(request, weights)
    settings: dict[str, Any] = {
        **way.architecture.settings,
        "experts.checkpoints": [str(weights.path)],
        "experts.bank.checkpoints": [str(path) for path in request.bank],
        # The usual ways have been compared.
        "experts.check_accuracy": False,
        "data.source.root": str(root),
        "data.source.classes": list(order) if order else None,
        "data.source.channels": way.architecture.channels,
        "data.source.size": way.size,
        "data.source.resize": way.resize,
        "data.mean": list(way.inputs.normalization.mean),
        "data.std": list(way.inputs.normalization.std),
        **_external(way),
        **limits.settings,
    }
    if "interpolation" in weights.words:
        settings["data.source.interpolation"] = weights.words["interpolation"]
    notes = usage_notes(usage, names)
    notes += [f"The file: {remark.rstrip('.')}." for remark in weights.remarks]
    notes += image_notes(folder)
    for reason in dict.fromkeys(unsupported.values()):
        parts = [part for part, why in unsupported.items() if why == reason]
        notes.append(f"Left out: {', '.join(parts)}, as {reason}.")
    if limits.left_out:
        notes.append(f"Within {request.minutes:g} minutes: {'; '.join(limits.left_out)}.")
    notes = [_plain(note) for note in (*notes, *remarks)]
    return Inspection(
        settings=settings | {"notes": notes},
        ways=[w.row for w in usage.ways],
        minutes=limits.minutes,
        import_path=import_folder
        if request.network is not None and lies_in(request.network, import_folder)
        else None,
    )


def _plain(note: str) -> str:
    """A note that no configuration reads as an interpolation: names in a file may be hostile."""
    return printable(note).replace("${", "$ {")


def _external(way: Way) -> dict[str, Any]:
    """The settings of a network whose inputs or outputs are adapted."""
    adapted: dict[str, Any] = {}
    if way.form.output is not None:
        adapted["network.output"] = way.form.output
    if way.form.probabilities:
        adapted["network.probabilities"] = True
    if way.inputs.is_reversed:
        adapted["network.reverse_channels"] = True
    if adapted and way.architecture.settings.get("network") != "external":
        raise UserError(
            f"{way.architecture.description} needs {', '.join(adapted)}, which only "
            "network=external has: name the network with --network"
        )
    return adapted


def _at_chance(request: Request, usage: Usage, folder: FolderPreview) -> str:
    way = usage.way
    row = way.row
    needed = chance_needs(len(folder.classes))
    return (
        f"{printable(request.weights)} classifies {way.accuracy:.1%} of {row['images']} images in "
        f"{printable(request.images)} correctly, at chance for {len(folder.classes)} classes "
        f"({needed} images tell), in the best of {usage.tried} ways ({row['network']}, size "
        f"{row['size']}, normalisation {row['normalisation']}). Likely causes, in order: images "
        "of other classes than those of the training; another order of the classes "
        "(--classes <file>); another normalisation (--mean, --std) or size (--size, --resize); "
        "weights of no training"
    )
