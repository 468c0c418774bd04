"""Reading any file of weights, without a network at hand and without running code in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from cwx.errors import UserError
from cwx.storage.file_kinds import is_safetensors
from cwx.storage.json_files import parse_json
from cwx.storage.refusals import CodeNeededError
from cwx.storage.safe_load import load_tensors
from cwx.training.importing.config_words import CONFIG, config_words
from cwx.training.importing.file_words import (
    Words,
    normalization_words,
    validated_words,
    words_of,
)
from cwx.training.importing.nests import open_nests

PLAIN = "a state_dict of tensors alone: torch.save(network.state_dict(), …)"
# The key of the words in the header of a safetensors file, as JSON.
WORDS = "cwx.words"
# The longer suffix first.
SUFFIXES = (".pth.tar", ".pt", ".pth", ".ckpt", ".safetensors", ".bin")
# Where programs save the weights of a folder.
_USUAL = ("model.safetensors", "pytorch_model.bin", "attack_result.pt", "model.pt")
_OTHER_LIBRARIES = {".h5", ".msgpack", ".pb", ".onnx", ".ot", ".tflite"}
_MOST_LISTED = 5
# Of pixels in 0-1, as BackdoorBench normalises its data sets outside of the network.
_BACKDOORBENCH = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tiny": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "mnist": ((0.5,), (0.5,)),
    "gtsrb": ((0.0,), (1.0,)),
    "celeba": ((0.0,), (1.0,)),
}
# The buffers in which networks keep the normalisation of their inputs.
_BUFFERS = (("mu", "sigma"), ("mean", "std"))
_MODULES = ("", "normalize", "normalizer", "normalization", "norm", "normalize_layer")


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The weights of one network, and what their file says of it.

    Attributes:
        path: of the file of weights; within a folder, the file that was read.
        tensors: the state_dict in the file under the names there, with their prefixes and with
            tensors beside the network; mapped into memory.
        words: ``model_name``, ``architecture``, ``num_classes``, ``dataset``, ``mean`` and ``std``
            (tuples, of pixels in 0-1), ``size`` (height, width), ``crop`` (fraction of the resized
            image), ``interpolation``, ``classes`` (names in the order of the outputs), ``channels``
            and ``normalization_tensors`` (names of the tensors that `mean` and `std` are from: a
            network that has them normalises its inputs itself); each only where it is stated.
        remarks: what kind of file it is, and what was left out, a sentence each.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    words: Mapping[str, Any]
    remarks: tuple[str, ...] = ()


def read_weights(path: Path) -> WeightsFile:
    """Read a file of `torch.save` or of safetensors, or a folder with one of them.

    The state_dict may lie in usual and other nests. The words are those of the file, of settings
    beside the weights, such as an ``argparse.Namespace`` or the hyperparameters of a
    LightningModule, and of the ``config.json`` of timm, Hugging Face or TrojAI beside the file.

    Raises:
        CodeNeededError: reading the file would run code (names the classes).
        UserError: there is no such file, or it holds no weights (says what it is).
        ValueError: the file is damaged or of another kind (says what it is).
    """
    file = weights_path(path)
    try:
        content = load_tensors(file, "checkpoint", PLAIN)
    except CodeNeededError as error:
        remedy = "or take the risk with --trust-pickle (cwx inspect)"
        raise CodeNeededError(
            f"{error}, {remedy}", error.classes, is_network=error.is_network
        ) from error
    nest = open_nests(file, content)
    words = words_of(nest.levels)
    remarks = [*_kind(nest.levels), *nest.remarks]
    if _is_backdoorbench(nest.levels[0]):
        words |= _backdoorbench_words(nest.levels[0], words)
    words |= {k: v for k, v in _buffer_words(nest.tensors).items() if k not in words}
    words |= _metadata_words(file)
    stated, origin = stated_beside(file)
    if origin:
        remarks.append(f"described by the {origin} beside it")
    words |= stated
    if words.keys() >= {"classes", "num_classes"} and len(words["classes"]) != words["num_classes"]:
        remarks.append(
            f"names {len(words.pop('classes'))} classes, but states {words['num_classes']}: the "
            "names are not used"
        )
    return WeightsFile(path=file, tensors=nest.tensors, words=words, remarks=tuple(remarks))


def weights_path(path: Path) -> Path:
    """The file of weights at `path`, or in the folder `path`.

    Raises:
        UserError: the folder has no file of weights, or several and none of a usual name.
    """
    if not path.is_dir():
        return path
    try:
        names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"the folder {path} cannot be read ({error.strerror})") from error
    if usual := next((name for name in _USUAL if name in names), None):
        return path / usual
    weights = [name for name in names if name.lower().endswith(SUFFIXES)]
    if len(weights) == 1:
        return path / weights[0]
    if any(name.endswith(".index.json") for name in names):
        raise UserError(
            f"the weights in {path} are in several parts: save them in one file "
            "(save_pretrained(…, max_shard_size='100GB'))"
        )
    if weights:
        listed = ", ".join(weights[:_MOST_LISTED]) + (" and more" if weights[_MOST_LISTED:] else "")
        raise UserError(
            f"the folder {path} has {len(weights)} files of weights ({listed}): name one of them"
        )
    others = [name for name in names if Path(name).suffix in _OTHER_LIBRARIES]
    hint = f", but {', '.join(others[:_MOST_LISTED])} of another library" if others else ""
    raise UserError(
        f"the checkpoint {path} is a folder without a file of weights "
        f"({', '.join(SUFFIXES)}){hint}: name a file"
    )


def stated_beside(file: Path) -> tuple[Words, str]:
    """The words of a configuration beside a file of weights, and its origin (`config_words`)."""
    return config_words(file.parent) if _is_described(file) else ({}, "")


def _metadata_words(file: Path) -> Words:
    """The words in the header of a safetensors file that `trusted_state` wrote."""
    if not is_safetensors(file):
        return {}
    with safe_open(file, "pt") as content:
        text = (content.metadata() or {}).get(WORDS, "{}")
    try:
        return validated_words(parse_json(text))
    except ValueError:
        return {}


def _is_described(file: Path) -> bool:
    """Whether a configuration in the folder is of this file, not of another."""
    if not (file.parent / CONFIG).exists():
        return False
    if file.name in _USUAL:
        return True
    others = [p for p in file.parent.iterdir() if p.name.lower().endswith(SUFFIXES)]
    return len(others) == 1


def _kind(levels: list[Mapping[Any, Any]]) -> list[str]:
    """What program wrote the file, where that shows."""
    top = levels[0]
    if _is_backdoorbench(top):
        return ["an attack_result of BackdoorBench"]
    if "pytorch-lightning_version" in top:
        return ["a checkpoint of Lightning"]
    return []


def _is_backdoorbench(top: Mapping[Any, Any]) -> bool:
    return {"model_name", "num_classes", "model", "bd_test"} <= top.keys()


def _backdoorbench_words(top: Mapping[Any, Any], words: Words) -> Words:
    """The data set of an attack_result and its normalisation, which is outside of the network."""
    path = top.get("data_path")
    folder = path.replace("\\", "/").rstrip("/").rpartition("/")[2] if isinstance(path, str) else ""
    for name in (str(words.get("dataset", "")), folder):
        key = name.lower().replace("-", "").replace("_", "").removesuffix("imagenet")
        if key in _BACKDOORBENCH:
            mean, std = _BACKDOORBENCH[key]
            return {"dataset": key, "mean": mean, "std": std}
    return {}


def _buffer_words(tensors: Mapping[str, Tensor]) -> Words:
    """The normalisation in buffers such as ``mu`` and ``sigma``."""
    for mean_name, std_name in _BUFFERS:
        for name in tensors:
            prefix, _, last = name.rpartition(".")
            names = (name, f"{prefix}.{std_name}" if prefix else std_name)
            is_of_inputs = last == mean_name and prefix.rpartition(".")[2] in (*_MODULES, "module")
            if not is_of_inputs or any(_size(tensors.get(n)) not in (1, 3) for n in names):
                continue
            # Floats of 32 bits have six digits.
            mean, std = ([round(v, 6) for v in tensors[n].flatten().tolist()] for n in names)
            if words := normalization_words(mean, std):
                return {**words, "normalization_tensors": names}
    return {}


def _size(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel()
