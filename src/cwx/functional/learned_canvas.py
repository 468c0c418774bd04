"""The schedule of a mask search that also optimises its canvases (ISCP, §4.2, Eq 4)."""

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, kw_only=True)
class LearnedCanvas:
    """Optimises canvases alternately with the masks (ISCP, Eq 4).

    Attributes:
        turn: number of mask steps, followed by the same number of canvas steps.
        step: update of each pixel along the sign of the gradient, in units of `scale`.
        scale: the value of white in the units of `step`: 1, or 255 for grey levels.

    Raises:
        ValueError: `turn` is below 1, or `step` is not in (0, `scale`].
    """

    turn: Annotated[int, ">= 1"]
    step: Annotated[float, "> 0"]
    scale: Annotated[float, "> 0, <= 65535"]

    def __post_init__(self) -> None:
        if self.turn < 1:
            raise ValueError(f"learned_canvas.turn is {self.turn}: give 1 step or more")
        if not 0 < self.step <= self.scale:
            raise ValueError(
                f"learned_canvas.step is {self.step} on a scale of 0 to {self.scale}: give a step "
                "above 0 on that scale, or set learned_canvas.scale (255 for grey levels)"
            )

    def updates_canvas(self, step: int) -> bool:
        """Whether a step, from 0, updates the canvases instead of the masks."""
        return step // self.turn % 2 == 1
