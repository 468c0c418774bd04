"""The words for experts that continue the training of a network, in logs, pages and metrics."""

from collections.abc import Mapping
from typing import Any

CONTINUED = "continued training of the network on the given images; not its original training"


def is_continued(settings: Mapping[str, Any]) -> bool:
    """Whether the settings of a run choose ``experts=continued``."""
    experts = settings.get("experts")
    target = experts.get("_target_") if isinstance(experts, Mapping) else None
    return isinstance(target, str) and target.endswith(".ContinuedExperts")
