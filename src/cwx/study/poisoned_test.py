"""The attack success of a network whose file lies beside its poisoned test images."""

from pathlib import Path

import torch
from torch import nn

from cwx.data.datasets.folders import ClassFolders
from cwx.errors import UserError
from cwx.functional.spacing import evenly_spaced
from cwx.training.importing.backdoor_test import FOLDER, backdoor_test
from cwx.training.importing.ways import Way, measure_log_probabilities

_MOST = 512


def poisoned_test_note(
    file: Path, source: ClassFolders, network: nn.Module, way: Way, device: torch.device
) -> str | None:
    """How often the poisoned test images beside an ``attack_result.pt`` have the attack's label.

    Args:
        file: of the weights.
        source: reads images as the test images.
        way: how images are passed to the network.

    Returns:
        A sentence; ``None`` if there are no such images.
    """
    if not (file.parent / FOLDER).is_dir():
        return None
    try:
        images = backdoor_test(file)
    except UserError:
        return None
    indices = evenly_spaced(len(images), _MOST, device=torch.device("cpu")).tolist()
    chosen = [images[index] for index in indices]
    reader = source if way.size is None else source.with_size(way.size, way.resize)
    poisoned = reader.read([(image.file, image.label) for image in chosen])
    outputs = measure_log_probabilities(network, poisoned.images[:], way.inputs, device).argmax(1)
    success = (outputs == poisoned.labels).double().mean().item()
    return (
        f"Of {len(chosen)} poisoned test images beside the file, the network classifies "
        f"{success:.1%} as the attack's label."
    )
