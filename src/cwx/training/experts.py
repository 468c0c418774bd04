"""The trained networks that a study uses."""

import copy
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Self

from cwx.storage.recording import Recording
from cwx.storage.trajectories import format_epochs
from cwx.training.bank import BankSource

# Saved settings of earlier versions name the class here.
from cwx.training.early_experts import EarlyExperts as EarlyExperts
from cwx.training.stages import Configuration


class Experts:
    """The networks that a study uses.

    Args:
        seeds: of the experts that methods may use; read from the store or trained.
        early: more experts that methods may use; they stop training early, which saves time, and
            are not evaluated. They are trained if a method uses trajectories.
        held_out: seeds of the held-out experts, for evaluation only.
        clean: seeds of experts trained on the images before corruption.
        bank: clean networks that the first expert is compared with.
        purified: seeds of experts trained again after purification has removed images.
        evaluation_seeds: of the evaluation networks; each network is trained once per seed.
        evaluation_checkpoints: imported weights of evaluation networks, by the name of the
            network, which is then not trained. Files, or names of torchvision weights.
        at_once: largest number of networks trained in parallel; it does not change the result.
        checkpoint_minutes: the time between checkpoints within an epoch of training; ``None`` for
            checkpoints after each epoch only.
        trajectories: folders of recorded trajectories or of one state_dict for each epoch, or
            buffers (`.pt` files) to import, used instead of `seeds` and `early`.
        checkpoints: imported weights, used instead of `seeds`, `early` and `trajectories`: files,
            or names of torchvision weights.
        epoch: the epoch at which networks of the explained kind are used; ``None`` for the last.
        check_accuracy: refuse imported networks whose accuracy on the test images is at chance, or
            far lower than with another usual size, normalisation or order of classes
            (`cwx.training.importing.accuracy_check`).

    Raises:
        ValueError: there is no expert, a seed is repeated, both `trajectories` and `checkpoints`
            are given, or `epoch` is not possible.
    """

    only_imported = False
    # Whether the early experts continue the training of the checkpoint.
    continues = False

    def __init__(
        self,
        *,
        seeds: Annotated[Sequence[Annotated[int, ">= 0, < 2**63"]], "distinct"],
        early: EarlyExperts,
        held_out: Annotated[Sequence[Annotated[int, ">= 0, < 2**63"]], "distinct"],
        clean: Annotated[Sequence[Annotated[int, ">= 0, < 2**63"]], "distinct"],
        bank: BankSource,
        purified: Annotated[Sequence[Annotated[int, ">= 0, < 2**63"]], "distinct"],
        evaluation_seeds: Annotated[Sequence[Annotated[int, ">= 0, < 2**63"]], "distinct"],
        evaluation_checkpoints: Mapping[str, str],
        at_once: Annotated[int, ">= 1"],
        checkpoint_minutes: Annotated[float, "> 0"] | None,
        trajectories: Sequence[str],
        checkpoints: Sequence[str],
        epoch: Annotated[int, ">= 0"] | None,
        check_accuracy: bool,
    ) -> None:
        if at_once < 1:
            raise ValueError(f"experts.at_once is {at_once}: give 1 or more")
        if checkpoint_minutes is not None and not 0 < checkpoint_minutes < math.inf:
            raise ValueError(
                f"experts.checkpoint_minutes is {checkpoint_minutes}: give more than 0, or null "
                "for checkpoints after each epoch only"
            )
        self.checkpoint_minutes = checkpoint_minutes
        if trajectories and checkpoints:
            raise ValueError(
                "experts.trajectories and experts.checkpoints are both given: leave one of them "
                "empty"
            )
        if epoch is not None and (epoch < 0 or checkpoints):
            why = "negative" if epoch < 0 else "but experts.checkpoints have no epochs"
            raise ValueError(f"experts.epoch is {epoch}, {why}: set it to null for the last epoch")
        # Imported networks replace those to train.
        imports = bool(trajectories or checkpoints)
        if self.only_imported and not imports:
            raise ValueError(
                "experts=checkpoint explains imported networks, but experts.checkpoints is empty: "
                "name a file (experts.checkpoints=[<file>]), or train networks with experts=single"
            )
        self.seeds = [] if imports else list(seeds)
        has_early = self.continues or not imports
        self.early = early if has_early else early.without_seeds()
        self.checkpoints, self.epoch = list(checkpoints), epoch
        self.check_accuracy = check_accuracy
        self.held_out, self.clean, self.purified = list(held_out), list(clean), list(purified)
        self.bank = bank
        self.evaluation_seeds, self.at_once = list(evaluation_seeds), at_once
        self.evaluation_checkpoints = dict(evaluation_checkpoints)
        self.trajectories = list(trajectories)
        if not self.seeds and not imports:
            raise ValueError(
                "a study needs an expert, but experts.seeds is empty: give it at least one seed, "
                "or import a trained network with experts.checkpoints=[<file>]"
            )
        self._adapt()
        # No method may use a held-out expert.
        explained_seeds = [
            *self.seeds, *self.early.seeds, *self.held_out, *self.early.held_out
        ]  # fmt: skip
        if shared := set(self.bank.seeds) & {*explained_seeds, *self.clean}:
            raise ValueError(
                f"seed {min(shared)} is in experts.bank.seeds and among the other experts: a "
                "network cannot be compared with itself; give the bank other seeds"
            )
        for names, seeds_of_kind in (
            (
                "seeds, experts.early.seeds, experts.held_out and experts.early.held_out",
                explained_seeds,
            ),
            ("clean", self.clean),
            ("purified", self.purified),
            ("bank.seeds", self.bank.seeds),
            ("evaluation_seeds", self.evaluation_seeds),
        ):
            counts = Counter(seeds_of_kind)
            if repeated := [seed for seed, count in counts.items() if count > 1]:
                raise ValueError(
                    f"seed {repeated[0]} is repeated in experts.{names}: give each seed once"
                )
        if (self.early.seeds or self.early.held_out) and self.early.epochs < 1:
            raise ValueError(
                f"experts.early.epochs is {self.early.epochs}: give 1 or more, or no "
                "experts.early.seeds"
            )

    def _adapt(self) -> None:
        """Refuse or replace what this kind of experts does not have."""

    def without_early(self) -> Self:
        """The same experts, for a study without a method that uses trajectories."""
        if self.continues:
            return self
        experts = copy.copy(self)
        experts.early = self.early.without_seeds()
        return experts

    def check(
        self, *, images: int, evaluation_networks: Collection[str], recipe: Configuration
    ) -> None:
        """Refuse experts that cannot be trained or read, before training.

        Args:
            images: the number of training images.
            evaluation_networks: names of the evaluation networks.
            recipe: the resolved settings of the training recipe.

        Raises:
            ValueError: there are no training images, `epoch` is not reached or not recorded, or
                `evaluation_checkpoints` names an unknown evaluation network.
        """
        if unknown := [
            name for name in self.evaluation_checkpoints if name not in evaluation_networks
        ]:
            choices = (
                f"choose one of {', '.join(evaluation_networks)}"
                if evaluation_networks
                else "there are none"
            )
            raise ValueError(
                f"experts.evaluation_checkpoints has {unknown[0]!r}, which is no evaluation "
                f"network: {choices}, or add it with "
                f"+network@evaluation_networks.{unknown[0]}=<network>"
            )
        required = {
            "seeds": self.seeds,
            "early.seeds": self.early.seeds,
            "early.held_out": self.early.held_out,
            "held_out": self.held_out,
            "clean": self.clean,
            "bank.seeds": self.bank.seeds,
            "evaluation_seeds": self.evaluation_seeds
            if set(evaluation_networks) - set(self.evaluation_checkpoints)
            else [],
        }
        if images == 0 and (needed := [f"experts.{n}" for n, seeds in required.items() if seeds]):
            raise ValueError(
                f"the data have no training images, but {', '.join(needed)} need training: give "
                "experts.checkpoints=[…] instead of seeds, and set experts.held_out=[] and "
                "experts.evaluation_seeds=[], or give experts.evaluation_checkpoints"
            )
        total = recipe.get("epochs")
        if self.epoch is not None and total is not None and (self.seeds or self.held_out):
            self._check_epoch(self.epoch, total, recipe.get("recording", {}).get("epochs"))

    @staticmethod
    def _check_epoch(epoch: int, total: int, recorded: int | None) -> None:
        if epoch > total:
            raise ValueError(
                f"experts.epoch is {epoch}, but recipe.epochs is {total}: give {total} or less, "
                "or raise recipe.epochs"
            )
        epochs = Recording(epochs=recorded).recorded_epochs(total)
        if epoch not in epochs:
            raise ValueError(
                f"experts.epoch is {epoch}, but recipe.recording.epochs={recorded} records only "
                f"{format_epochs(epochs)}: choose one of these, or raise "
                f"recipe.recording.epochs to {epoch}"
            )

    def architectures_to_train(self, evaluation_networks: Collection[str]) -> list[str]:
        """Names of the architectures to train: ``network`` for the explained one, and evaluation
        networks.
        """
        explained = (
            self.seeds
            or self.early.seeds
            or self.held_out
            or self.early.held_out
            or self.clean
            or self.bank.seeds
        )
        without_checkpoint = [
            name for name in evaluation_networks if name not in self.evaluation_checkpoints
        ]
        return [
            *(["network"] if explained else []),
            *(without_checkpoint if self.evaluation_seeds else []),
        ]

    def kinds(self) -> list[str]:
        """The kinds of experts that methods may explain."""
        available = {"expert": True, "held-out": bool(self.held_out), "clean": bool(self.clean)}
        return [kind for kind, is_available in available.items() if is_available]

    def evaluation_networks(self, names: Collection[str]) -> list[str]:
        """The evaluation networks, by name, that are trained or imported."""
        return [
            name for name in names if self.evaluation_seeds or name in self.evaluation_checkpoints
        ]

    def epochs(self, total: int | None) -> dict[str, int]:
        """The last epoch of the experts that methods use, by the setting that defines it.

        Args:
            total: epochs of the recipe; ``None`` if the recipe has no such setting.
        """
        last = {"recipe.epochs": total} if self.seeds and total is not None else {}
        last |= {"experts.early.epochs": self.early.epochs} if self.early.seeds else {}
        is_single = bool(self.checkpoints) and not self.continues
        return last | ({"experts.checkpoints": 0} if is_single else {})

    def held_out_epochs(self, total: int | None) -> dict[str, int]:
        """As `epochs`, of the held-out experts."""
        last = {"recipe.epochs": total} if self.held_out and total is not None else {}
        return last | ({"experts.early.epochs": self.early.epochs} if self.early.held_out else {})


class ImportedExperts(Experts):
    """As `Experts`, whose explained networks must be imported: `checkpoints` or `trajectories`."""

    only_imported = True


class ContinuedExperts(ImportedExperts):
    """Experts that continue the training of one checkpoint, whose own training was not recorded.

    The network of `checkpoints` is explained and evaluated. The trajectories that methods use are
    not those of its original training: `early.seeds`, and `early.held_out` for evaluation, are
    trained from its weights with the recipe, on the images of the study, for `early.epochs`. They
    replace the experts of `seeds`, `held_out` and `clean`, which start from random weights.

    Raises:
        ValueError: as `Experts`; also if there is not exactly one checkpoint, or no `early.seeds`.
    """

    continues = True

    def _adapt(self) -> None:
        if len(self.checkpoints) != 1:
            raise ValueError(
                f"experts=continued continues the training of one network, but there are "
                f"{len(self.checkpoints)} experts.checkpoints: name one file"
            )
        if not self.early.seeds:
            raise ValueError(
                "experts=continued trains experts.early.seeds, which is empty: give at least one"
            )
        # An experiment may ask for them; their training would have another start.
        self.held_out, self.clean = [], []
