"""The architectures that a file of weights may be of."""

from pathlib import Path

from cwx.errors import UserError, printable
from cwx.training.importing.architecture import Architecture, nearest, recognise
from cwx.training.importing.named_architecture import named_architecture
from cwx.training.importing.weights_file import WeightsFile


def fitting_architectures(
    target: str | None, weights: WeightsFile, import_folder: Path
) -> list[Architecture]:
    """The architecture that the user names, or those that have exactly the tensors of a file.

    Args:
        target: the import path of what builds the network; ``None`` to recognise it.
        import_folder: where the module of `target` is searched besides the installed packages.

    Raises:
        UserError: there is no such function or class, or no known network fits.
    """
    if target is not None:
        return [named_architecture(target, weights, import_folder)]
    architectures = recognise(weights.tensors, weights.words) or _of_a_part(weights)
    if not architectures:
        raise UserError(
            f"{printable(weights.path)} fits no known network ({nearest(weights.tensors)}): "
            "name the function or class that builds it with --network <module>.<name>, such as "
            "torchvision.models.resnet18; the module may lie beside the file"
        )
    return architectures


def _of_a_part(weights: WeightsFile) -> list[Architecture]:
    """The architectures of the only part of a file that is a network.

    Attacks save a classifier beside a generator. The accuracy tells whether it is whole.
    """
    parts = sorted({name.partition(".")[0] for name in weights.tensors if "." in name})
    by_part = {}
    for part in parts:
        tensors = {n: t for n, t in weights.tensors.items() if n.startswith(f"{part}.")}
        if architectures := recognise(tensors, weights.words):
            by_part[part] = architectures
    return next(iter(by_part.values())) if len(by_part) == 1 else []
