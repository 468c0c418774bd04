"""Taking the weights out of a pickled network that the user trusts, in a process of its own."""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from cwx.errors import UserError, printable
from cwx.storage.atomic import write_tensors
from cwx.storage.json_files import read_object
from cwx.storage.regular_files import digest_regular
from cwx.storage.safe_load import is_plain, load_tensors
from cwx.training.importing.file_words import name_of, validated_words
from cwx.training.importing.pickled_network import RESULT, STATE
from cwx.training.importing.weights_file import PLAIN, WORDS, stated_beside, weights_path

log = logging.getLogger(__name__)

_SECONDS = 600
_LONGEST_REASON, _MOST_NAMED = 300, 5
# Without a network and, with its processes, at an end when the first process ends.
_ISOLATIONS = (
    ("unshare", "-rn", "--pid", "--fork", "--kill-child"),
    ("unshare", "-rn"),
)
# What Python and torch need of the environment: no secrets.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "OMP_NUM_THREADS")


def trusted_state(
    path: Path, folder: Path, import_path: Path | None = None, *, seconds: float = _SECONDS
) -> Path:
    """The state_dict of a pickled network as a safetensors file; runs the code that it names.

    The code runs in a process of its own: with limited time and memory, without the variables of
    this process's environment and, where the system has ``unshare``, without a network. It can read
    and write the files of the user. Only tensors come back, and what the file says of itself
    (`read_weights` reads it from the new file).

    Args:
        path: a file of `torch.save`, or its folder.
        folder: for the new file, which gets the name of the old one with ``.state.safetensors``, in
            a folder of its own for each file and content.
        import_path: the folder, or a module in the folder, that defines the classes; by default
            that of the file.
        seconds: the maximum time.

    Raises:
        UserError: classes of the file cannot be imported (names them), it holds no network and no
            weights, or its code fails, takes too long or too much memory.
    """
    file = weights_path(path)
    try:
        content = digest_regular(file)
    except OSError as error:
        raise UserError(
            f"the checkpoint {file} cannot be read ({error.strerror}): name an existing file"
        ) from error
    modules = import_path or file.parent
    if modules.is_file():
        modules = modules.parent
    with TemporaryDirectory() as temporary:
        results = Path(temporary)
        status = _run(file, results, modules, seconds)
        state, description = _results(file, results, modules, status)
    words = validated_words(description.get("words"))
    if architecture := name_of(str(description.get("class")).removeprefix("__main__.")):
        words["architecture"] = architecture
    words |= stated_beside(file)[0]
    # Files of one name are usual (id-0/model.pt, id-1/model.pt), and a study may still read the
    # weights of an earlier call.
    source = f"{content} {file.resolve()} {modules.resolve()}"
    key = hashlib.sha256(source.encode()).hexdigest()[:20]
    target = folder / key / f"{file.stem}.state.safetensors"
    write_tensors(target, state, {WORDS: json.dumps(words)})
    return target


def _run(file: Path, results: Path, modules: Path, seconds: float) -> int:
    """The exit status of the process; its output is not read."""
    isolation = _isolation()
    if not isolation:
        log.warning(
            "the code of %s runs with access to the network: this system offers no isolation", file
        )
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {
        "HOME": str(results),
        "TMPDIR": str(results),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "CUDA_VISIBLE_DEVICES": "",
    }
    arguments = map(str, (file.resolve(), results, modules.resolve()))
    process = subprocess.Popen(
        [*isolation, sys.executable, "-P", "-m", "cwx.training.importing.pickled_network",
         *arguments],
        env=environment, cwd=results, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"the code of {file} took more than {seconds:g} s and was stopped: save the state_dict "
            "of its network where it was made"
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@cache
def _isolation() -> Sequence[str]:
    """The command that runs another without a network; empty if there is none."""
    for command in _ISOLATIONS:
        if shutil.which(command[0]) is None:
            continue
        trial = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=60)
        if trial.returncode == 0:
            return command
    return ()


def _results(
    file: Path, results: Path, modules: Path, status: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description that the process left, which are as little trusted."""
    try:
        description = read_object(results / RESULT)
    except (OSError, ValueError):
        raise UserError(
            f"the code of {file} ended without a result (exit status {status}): it failed, or "
            "needs more memory; save the state_dict of its network where it was made"
        ) from None
    if missing := description.get("missing"):
        names = [printable(name)[:100] for name in missing] if isinstance(missing, list) else []
        more = f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else ""
        raise UserError(
            f"{file} needs classes that cannot be imported: {', '.join(names[:_MOST_NAMED])}"
            f"{more}; they are looked for in {modules}: name the folder of their source code "
            "(--import-path), or install it"
        )
    for key, text in (("error", f"the code of {file} failed: "), ("refused", "")):
        if key in description:
            reason = printable(str(description[key]).split("\n")[0])[:_LONGEST_REASON]
            raise UserError(f"{text}{reason}")
    state_file = results / STATE
    state = load_tensors(state_file, "state", PLAIN) if state_file.is_file() else {}
    if not isinstance(state, dict) or not state or not all(map(is_plain, state.values())):
        raise UserError(
            f"{file} holds no network with weights: name a file with a network, or with its "
            "state_dict"
        )
    return {name: tensor.clone() for name, tensor in state.items()}, description
