"""The plan of a study, which its parts check before any network is trained."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import nn

from cwx.data.datamodule import ImageData
from cwx.explanations.images import Explanations
from cwx.storage.trajectories import format_epochs
from cwx.training.build import NetworkFactory, build_network, check_memory
from cwx.training.redrawn import REDRAWN, is_redrawn, redrawn_layers, weight_layers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a study.

    Attributes:
        data: the images, loaded and corrupted.
        methods: names of the explanation methods.
        held_out: the number of held-out experts, early ones included.
        held_out_epochs: the last epoch of the held-out experts, by the setting that defines it.
        leaves: the output type of each method, by its name; `Explanations` if missing.
        epochs: the last epoch of the experts that methods use, by the setting that defines it; 0
            for checkpoints, which have one state.
        networks: build the explained kind of network, as ``network``, and evaluation networks, by
            name.
        explains: the kind of network that a method explains, by the method's name, if it has this
            setting.
        searched: the fraction of the test images that a method's search uses, by the method's name,
            if it has this setting.
        names: names of the networks that are trained or imported: kinds of experts and evaluation
            networks.
        recorded: ``recipe.recording.epochs``; ``None`` if all epochs are recorded.
        constructs: whether the study replaces the training images.
        cures: whether the study removes a trigger.
        adversarial: whether the study makes adversarial images.
        kinds: `names`, and ``fine-tuned`` if the experts are fine-tuned; empty if unknown.
        trajectories: the recorded epochs of each imported trajectory, by its description; empty
            until they are read.
    """

    data: ImageData
    methods: Sequence[str]
    held_out: int
    epochs: Mapping[str, int] = field(default_factory=dict)
    leaves: Mapping[str, type[Any]] = field(default_factory=dict)
    networks: Mapping[str, NetworkFactory] = field(default_factory=dict)
    explains: Mapping[str, str] = field(default_factory=dict)
    searched: Mapping[str, float] = field(default_factory=dict)
    names: Sequence[str] = ()
    recorded: int | None = None
    held_out_epochs: Mapping[str, int] = field(default_factory=dict)
    adversarial: bool = True
    constructs: bool = False
    cures: bool = False
    kinds: Sequence[str] = ()
    trajectories: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def untrained(self, method: str) -> nn.Module | None:
        """An untrained network of the kind that a method explains; ``None`` if it is unknown."""
        factory = self.networks.get(self.explains.get(method, ""), self.networks.get("network"))
        return build_network(factory, self.data, seed=0) if factory else None

    def refuse(self, methods: Mapping[str, Callable[..., Any]], parts: Sequence[Any]) -> None:
        """Run the `check` of every method and part that has one.

        Args:
            methods: build the methods, by name; a class with a class method `check` is checked
                before it is built.
            parts: other parts of the study, already built.

        Raises:
            ValueError: a check fails.
        """
        for name, build in methods.items():
            if isinstance(build, partial) and hasattr(build.func, "check"):
                build.func.check(self, stage=name, **build.keywords)
        for part in parts:
            if isinstance(part, StudyCheck):
                part.check(self)

    def require_explained(self, kinds: Sequence[str]) -> None:
        """Refuse a method that explains a kind of network that the study does not have.

        Raises:
            ValueError: lists the choices.
        """
        for method, kind in self.explains.items():
            if is_redrawn(kind):
                self._require_layers(method, kind)
            elif kind not in kinds:
                raise ValueError(
                    f"method.{method}.explains is {kind!r}, but this study has no such network: "
                    f"set it to one of {', '.join(kinds)}, or give experts.{kind.replace('-', '_')}"
                    " a seed"
                )

    def _require_layers(self, method: str, kind: str) -> None:
        layers, network = redrawn_layers(kind), self.networks.get("network")
        if layers is None or network is None:
            return
        count = len(weight_layers(build_network(network, self.data, seed=0)))
        if layers > count:
            raise ValueError(
                f"method.{method}.explains is {kind!r}, but the network has {count} layers with "
                f"weights: set it to {REDRAWN}/1 to {REDRAWN}/{count}, or {REDRAWN} for all"
            )

    def require_segments(
        self, part: str, lasts: Mapping[str, int], *, span: int, start_min: int, start_max: int
    ) -> None:
        """Refuse segments [k, k + span] that trajectories will not have, for k in a closed range.

        Args:
            part: the part that needs them, such as ``method.distill``.
            lasts: the last epoch of trajectories, by the setting that defines it.

        Raises:
            ValueError: the range is empty, ends after a last epoch, or needs an epoch that
                ``recipe.recording.epochs`` does not record or that an imported trajectory lacks.
        """
        if start_min > start_max:
            raise ValueError(
                f"{part}.start_min is {start_min}, above {part}.start_max={start_max}: lower it"
            )
        needed = {k for s in range(start_min, start_max + 1) for k in (s, s + span)}
        for setting, last in lasts.items():
            if start_max + span > last:
                raise ValueError(
                    f"segment [{start_max}, {start_max + span}] exceeds the {last} epochs of "
                    f"{setting}: lower {part}.start_max or raise {setting}"
                )
            missing = [k for k in needed if self.recorded is not None and self.recorded < k < last]
            if missing:
                raise ValueError(
                    f"recipe.recording.epochs is {self.recorded}, but {part} needs the state of "
                    f"epoch {max(missing)}: raise it to {max(missing)}, or give null to record all"
                )

        for name, epochs in self.trajectories.items():
            self._require_epochs(part, name, epochs, needed)

    @staticmethod
    def _require_epochs(
        part: str, name: str, epochs: Sequence[int], needed: Collection[int]
    ) -> None:
        if len(epochs) < 2:
            raise ValueError(
                f"{part} needs two recorded states of a trajectory, but {name} has a single state "
                f"(epoch {epochs[0]}): record the initial weights and those after each epoch"
            )
        if missing := sorted(set(needed) - set(epochs)):
            raise ValueError(
                f"{part} needs epochs {format_epochs(sorted(needed))}, but {name} has epochs "
                f"{format_epochs(epochs)}, not {format_epochs(missing)}: choose {part}.start_min, "
                f"{part}.start_max and {part}.span among these"
            )

    def require_memory(self, setting: str, count: int, numbers: int) -> None:
        """Refuse a count of float32 tensors that exceed the main memory.

        Args:
            setting: the name of the setting that holds `count`.
            numbers: the number of float32 numbers for a count of 1.

        Raises:
            ValueError: gives the required and the available memory.
        """
        check_memory(4 * count * numbers, f"{setting} is {count}", "lower it")

    def require_adversarial(self, name: str) -> None:
        """Refuse the evaluation `name`, which needs adversarial images, if the study makes none.

        Raises:
            ValueError: names the evaluation.
        """
        if not self.adversarial:
            raise ValueError(
                f"evaluation.{name} needs adversarial images, but this study makes none: choose "
                "adversary=ensemble"
            )

    def require_images_outside(self, setting: str, method: str) -> None:
        """Refuse to measure a method on test images that its search did not use if it uses all.

        Args:
            setting: of the evaluation, which names the method.
            method: its name.

        Raises:
            ValueError: there are no such images.
        """
        fraction, count = self.searched.get(method, 0.0), len(self.data.splits.test)
        if fraction and round(fraction * count) >= count:
            raise ValueError(
                f"{setting} is {method!r}, which is measured on test images that its search did "
                f"not use, and method.{method}.searched={fraction:g} uses all {count}: lower it, "
                "such as to 0.5"
            )

    def require_images(self, name: str, setting: str) -> None:
        """Refuse a setting whose value `name` is not a method that makes images of classes.

        Raises:
            ValueError: lists the choices.
        """
        suitable = [n for n in self.methods if self.leaves.get(n, Explanations) is Explanations]
        if name not in suitable:
            choices = f"one of {', '.join(suitable)}" if suitable else "one of method=[…]"
            raise ValueError(
                f"{setting} is {name!r}, but this study has no such method that makes images: set "
                f"it to {choices}, or remove {setting.rpartition('.')[0]}"
            )


@runtime_checkable
class StudyCheck(Protocol):
    """A part of a study that checks the plan before training."""

    def check(self, plan: Plan) -> None:
        """Refuse a study that this part cannot work with.

        Raises:
            ValueError: names the setting and the remedy.
        """


def output_type(method: Callable[..., Any]) -> type[Any]:
    """The output type that a method's class declares as `leaves`; `Explanations` by default."""
    kind: type[Any] = getattr(getattr(method, "func", method), "leaves", Explanations)
    return kind


def explained_kinds(methods: Mapping[str, Callable[..., Any]]) -> dict[str, str]:
    """The setting ``explains`` of each method that has it, by the method's name."""
    return settings_of(methods, "explains")


def settings_of(methods: Mapping[str, Callable[..., Any]], setting: str) -> dict[str, Any]:
    """A setting of each method that has it, by the method's name."""
    return {
        name: build.keywords[setting]
        for name, build in methods.items()
        if isinstance(build, partial) and setting in build.keywords
    }


def uses_trajectories(methods: Mapping[str, Callable[..., Any]]) -> bool:
    """Whether a method may use more than one network: it has no setting ``explains``."""
    return bool(methods.keys() - explained_kinds(methods).keys())
