"""What a study is about to do, for its parts to refuse it before anything is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import nn

from cwx.data.datamodule import ImageData
from cwx.explanations.images import Explanations
from cwx.training.build import NetworkFactory, build_network


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study is about to do.

    Attributes:
        data: the images, loaded and corrupted.
        methods: the names of those that will explain.
        held_out: how many experts no method will see.
        leaves: what each method leaves, by its name; images of classes where it is not there.
        epochs: how far the experts that methods use are trained here, by the setting that says so;
            0 for checkpoints, of one state each.
        networks: build the explained kind of network, as ``network``, and evaluation networks, by name.
        explains: the kind of network that each method explains, by its name, where it says so.
        names: what networks that are trained or imported go by: kinds of experts, and evaluation networks.
        adversarial: whether networks are to be looked at with adversarial images.
        kinds: these names, and what becomes of the networks; empty where the plan does not tell.
    """

    data: ImageData
    methods: Sequence[str]
    held_out: int
    epochs: Mapping[str, int] = field(default_factory=dict)
    leaves: Mapping[str, type[Any]] = field(default_factory=dict)
    networks: Mapping[str, NetworkFactory] = field(default_factory=dict)
    explains: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = ()
    adversarial: bool = True
    kinds: Sequence[str] = ()

    def untrained(self, method: str) -> nn.Module | None:
        """A network of the kind that a method explains; none where the plan does not tell."""
        factory = self.networks.get(self.explains.get(method, ""), self.networks.get("network"))
        return build_network(factory, self.data, seed=0) if factory else None

    def refuse(self, methods: Mapping[str, Callable[..., Any]], parts: Sequence[Any]) -> None:
        """Let every part refuse this study that can tell beforehand.

        Args:
            methods: what builds them, by name: a class that checks does so before it is built.
            parts: those that are there already.

        Raises:
            ValueError: one does.
        """
        for name, build in methods.items():
            if isinstance(build, partial) and hasattr(build.func, "check"):
                build.func.check(self, stage=name, **build.keywords)
        for part in parts:
            if isinstance(part, Conditional):
                part.check(self)

    def require_explained(self, kinds: Sequence[str]) -> None:
        """Refuse a method that is to explain a network of another kind than those of the study.

        Raises:
            ValueError: with the choices.
        """
        for method, kind in self.explains.items():
            if kind not in kinds:
                raise ValueError(
                    f"method.{method}.explains is {kind!r}, and this study has no such network: "
                    f"set it to one of {', '.join(kinds)}, or give experts.{kind.replace('-', '_')}"
                    " a seed"
                )

    def require_adversarial(self, name: str) -> None:
        """Refuse an evaluation, by its name, of adversarial images where there are to be none.

        Raises:
            ValueError: with the remedy.
        """
        if not self.adversarial:
            raise ValueError(
                f"evaluation.{name} needs adversarial images, and this study makes none: choose "
                "adversary=ensemble"
            )

    def require_images(self, name: str, place: str) -> None:
        """Refuse a setting, at `place`, that names a method which is to make no images of classes.

        Raises:
            ValueError: with the choices.
        """
        fit = [n for n in self.methods if self.leaves.get(n, Explanations) is Explanations]
        if name not in fit:
            choices = f"one of {', '.join(fit)}" if fit else "one of method=[…]"
            raise ValueError(
                f"{place} is {name!r}, of which this study makes no images: set it to {choices}, "
                f"or leave {place.rpartition('.')[0]} out"
            )


@runtime_checkable
class Conditional(Protocol):
    """A part of a study that not every study can serve."""

    def check(self, plan: Plan) -> None:
        """Refuse a study that it cannot measure, before anything is trained.

        Raises:
            ValueError: with the remedy.
        """


def left_by(method: Callable[..., Any]) -> type[Any]:
    """What a method's class says that it leaves; images of classes if it does not."""
    kind: type[Any] = getattr(getattr(method, "func", method), "leaves", Explanations)
    return kind


def explained_by(methods: Mapping[str, Callable[..., Any]]) -> dict[str, str]:
    """The kind of network that each method is set to explain, where it says so."""
    return {
        name: build.keywords["explains"]
        for name, build in methods.items()
        if isinstance(build, partial) and "explains" in build.keywords
    }
