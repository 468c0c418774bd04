"""Why a file of weights cannot be loaded: what it is, the classes that it needs, or damage."""

import re
from collections.abc import Sequence
from pathlib import Path

from cwx.errors import printable
from cwx.storage.file_kinds import is_text
from cwx.storage.harmless_classes import is_harmless
from cwx.storage.pickle_scan import PickleScan, scan_pickle

# Names of classes in a pickle; torch searches its message about a longer one for minutes.
LONGEST_NAME = 500
# The unpickler of torch reads this protocol alone, which is that of torch.save.
_PROTOCOL = 2
_MOST_NAMED, _LONGEST_REASON = 5, 200
_ANEW = "no code in it was run: where you trust it, save it anew as"


class CodeNeededError(ValueError):
    """Reading a file would run code of it, or of the classes that it names.

    Attributes:
        classes: the names of these classes, those of the user first.
        is_network: whether a whole network is pickled in the file.
    """

    def __init__(self, message: str, classes: Sequence[str] = (), *, is_network: bool = False):
        super().__init__(message)
        self.classes, self.is_network = tuple(classes), is_network


def refusal(path: Path, kind: str, form: str, error: Exception) -> ValueError:
    """The error to raise for a file that `torch.load` or safetensors refused.

    Args:
        kind: the kind of file.
        form: the expected content.
        error: the exception of the library.
    """
    file = f"the {kind} {path}"
    try:
        scan = scan_pickle(path)
        text = not scan.is_whole and is_text(path)
    except OSError:
        scan, text = PickleScan(), False
    if text:
        return ValueError(f"{file} is a text, not weights; give {form}")
    if needed := _needed(scan):
        shown = ", ".join(needed[:_MOST_NAMED])
        shown += f" and {len(needed) - _MOST_NAMED} more" if needed[_MOST_NAMED:] else ""
        whole = "a whole pickled network, " if scan.holds_network else ""
        return CodeNeededError(
            f"{file} is {whole}not plain tensors: reading it would run code of {shown}; "
            f"{_ANEW} {form}",
            needed,
            is_network=scan.holds_network,
        )
    if scan.is_whole and not scan.is_of_torch:
        return CodeNeededError(
            f"{file} is a plain pickle, which torch.save did not write, not plain tensors; "
            f"{_ANEW} {form}"
        )
    if scan.is_whole and scan.protocol > _PROTOCOL:
        return CodeNeededError(
            f"{file} is not plain tensors in the protocol of torch.save, but a pickle of protocol "
            f"{scan.protocol}; {_ANEW} {form}"
        )
    # A damaged storage, which follows the pickles, is another kind of error.
    if scan.is_whole and not isinstance(error, RuntimeError | EOFError | OSError):
        return CodeNeededError(f"{file} is not plain tensors ({_reason(error)}); {_ANEW} {form}")
    return ValueError(
        f"{file} is truncated, damaged or not plain tensors ({type(error).__name__}); "
        f"no code in it was run: copy it again, or save it anew as {form}"
    )


def _needed(scan: PickleScan) -> list[str]:
    """The classes and functions that are not read, those of the user first, built-ins last."""
    names = [name for name in scan.globals if len(name) <= LONGEST_NAME and not is_harmless(name)]
    needed = [printable(name.replace("__builtin__.", "builtins.")) for name in names]

    def rank(name: str) -> int:
        return 2 if name.startswith("builtins.") else name.startswith("torch.")

    return sorted(needed, key=rank)


def _reason(error: Exception) -> str:
    """The cause in a message of the unpickler of torch, as one line."""
    if unknown := re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error)):
        return f"torch does not read {unknown[1]}"
    cause = re.search(r"WeightsUnpickler error: (.+)", str(error))
    text = printable(cause[1].strip() if cause else type(error).__name__)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
