"""What a study is about to do, for its parts to refuse it before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cwx.data.module import ImageData


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study is about to do.

    Attributes:
        data: the images, loaded and corrupted.
        methods: the names of those that will explain.
        held_out: how many experts no method will see.
        epochs: how far the experts that methods use are trained here, by the setting that says so.
    """

    data: ImageData
    methods: Sequence[str]
    held_out: int
    epochs: Mapping[str, int] = field(default_factory=dict)

    def require_method(self, name: str, place: str) -> None:
        """Refuse a setting, at `place`, that names a method which is not to run.

        Raises:
            ValueError: with the choices.
        """
        if name not in self.methods:
            choices = f"one of {', '.join(self.methods)}" if self.methods else "one of method=[…]"
            raise ValueError(
                f"{place} is {name!r}, which this study does not make: set it to {choices}, or "
                f"leave {place.rpartition('.')[0]} out"
            )


@runtime_checkable
class Conditional(Protocol):
    """An evaluation, a purification or a construction that not every study can serve."""

    def check(self, plan: Plan) -> None:
        """Refuse a study that it cannot measure, before anything is trained.

        Raises:
            ValueError: with the remedy.
        """
