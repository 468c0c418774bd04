"""Which networks of a run its scale leaves at their full size."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_EVALUATION_NETWORK = "network@evaluation_networks."


def unscaled_networks(choices: Mapping[str, Any], folders: Iterable[Path]) -> list[str]:
    """A sentence for each network that the chosen scale has no form of, or does not apply one to.

    Args:
        choices: of each configuration group, as in ``hydra.runtime.choices``.
        folders: configuration folders; a form is scale/<scale>/network/<network>.yaml.

    Returns:
        Nothing if the scale has no forms of networks at all, as scale=paper.
    """
    scale = choices.get("scale")
    forms = [f for folder in folders if (f := folder / f"scale/{scale}/network").is_dir()]
    if not forms:
        return []
    lines = []
    for key, network in choices.items():
        name = key.removeprefix(_EVALUATION_NETWORK)
        if key != "network" and name == key:
            continue
        exists = any((form / f"{network}.yaml").is_file() for form in forms)
        applied = f"scale/{scale}/{key}" in choices or key == "network"
        if not exists:
            lines.append(f"{key}={network} has no form at scale={scale} and keeps its full size")
        elif not applied:
            lines.append(
                f"{key}={network} keeps its full size at scale={scale}; to reduce it, add "
                f"+scale/{scale}/{key}={network}"
            )
    return lines
