"""What a pickle needs and whether it is whole, read from its bytes without running code in it."""

import logging
import pickletools
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO

from cwx.storage.regular_files import open_regular

log = logging.getLogger(__name__)

# Pickled contents are read up to so many bytes, to name their classes.
_MOST_PICKLED = 16 * 2**20
# The older format of torch.save: this number, a version, the system, the value, names of storages.
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 5
# The opcodes of a pickled integer: the protocol, the integer, the end.
_OF_A_NUMBER = 3
_NETWORK = frozenset({"_parameters", "_buffers", "_modules"})


@dataclass
class PickleScan:
    """What the opcodes of a file of torch.save or pickle say.

    Attributes:
        globals: classes and functions that unpickling would need, in the order of the file, such as
            ``argparse.Namespace``.
        protocol: the highest protocol of the pickles; 0 if the file is no pickle.
        is_of_torch: whether torch.save wrote the file.
        is_whole: whether every pickle ends as it should.
        attributes: the attributes of a pickled `torch.nn.Module` among the texts.
    """

    globals: dict[str, None] = field(default_factory=dict)
    protocol: int = 0
    is_of_torch: bool = False
    is_whole: bool = False
    attributes: set[str] = field(default_factory=set)

    @property
    def holds_network(self) -> bool:
        """Whether a pickled `torch.nn.Module` is among the contents."""
        return self.attributes == _NETWORK


def scan_pickle(path: Path) -> PickleScan:
    """Read the opcodes of a file of torch.save or pickle, up to a limit.

    Raises:
        OSError: the file cannot be read.
    """
    scan = PickleScan()
    with open_regular(path) as file:
        try:
            if zipfile.is_zipfile(file):
                _scan_archive(file, scan)
            else:
                file.seek(0)
                _scan_pickles(file, scan)
        except Exception:
            # Storages follow the pickles, or the file is damaged from here on.
            log.debug("%s is no pickle from here on", path)
    return scan


def pickled_globals(path: Path) -> list[str]:
    """The classes and functions that unpickling a file of torch.save or pickle would need.

    Sorted names such as ``argparse.Namespace``; empty if the file is no intact pickle.

    Raises:
        OSError: the file cannot be read.
    """
    return sorted(scan_pickle(path).globals)


def _scan_archive(file: IO[bytes], scan: PickleScan) -> None:
    with zipfile.ZipFile(file) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        scan.is_of_torch = True
        with archive.open(name) as data:
            _scan(BytesIO(data.read(_MOST_PICKLED)), scan)
    scan.is_whole = True


def _scan_pickles(file: IO[bytes], scan: PickleScan) -> None:
    """Read one pickle, or those of the older format of torch.save, which storages follow."""
    data = BytesIO(file.read(_MOST_PICKLED))
    scan.is_of_torch = _scan(data, scan) == _MAGIC_NUMBER
    for _ in range(_LEGACY_PICKLES - 1 if scan.is_of_torch else 0):
        _scan(data, scan)
    scan.is_whole = True


def _scan(data: BytesIO, scan: PickleScan) -> int | None:
    """Note what the next pickle in `data` needs; returns its integer, if it is a single one."""
    strings: list[str] = []
    memo: list[str | None] = []
    last: str | None = None
    number: int | None = None
    count = 0
    for opcode, argument, _ in pickletools.genops(data):
        count += 1
        name = opcode.name
        if opcode.proto > scan.protocol:
            scan.protocol = opcode.proto
        if name == "GLOBAL":
            scan.globals[str(argument).replace(" ", ".")] = None
        elif name == "STACK_GLOBAL" and len(strings) >= 2:
            scan.globals[".".join(strings[-2:])] = None
        if name == "MEMOIZE":
            memo.append(last)
            continue
        if name in ("BINGET", "LONG_BINGET"):
            index = int(argument or 0)
            last = memo[index] if index < len(memo) else None
        elif type(argument) is str:
            last = argument
            if last in _NETWORK:
                scan.attributes.add(last)
        else:
            last = None
            number = argument if isinstance(argument, int) else number
        if last is not None:
            strings = [*strings[-1:], last]
    return number if count == _OF_A_NUMBER else None
