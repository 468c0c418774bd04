"""Which trained networks a study takes."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from cwx.storage.recording import Recording
from cwx.storage.trajectories import listed
from cwx.training.stages import Configuration


@dataclass(frozen=True, kw_only=True)
class Early:
    """Experts whose training stops early.

    Attributes:
        seeds: of their weights and their training.
        epochs: how far they train, as far as methods look at least.
    """

    seeds: Sequence[int]
    epochs: int


class Experts:
    """Which networks a study takes.

    Args:
        seeds: of the experts that methods may use; taken from the store or trained.
        early: more experts that methods may use, trained no further than these look: they cost
            less and are never judged.
        held_out: seeds of experts for evaluation alone.
        clean: seeds of experts that are trained on the images before any corruption.
        purified: seeds of those trained anew once a purification has filtered the images.
        evaluation_seeds: of the evaluation networks, each of which is trained once a seed.
        evaluation_checkpoints: weights of evaluation networks trained elsewhere, by the evaluation network's name: it is not
            trained here. Files, or names under which torchvision publishes weights.
        at_once: how many train side by side, at most; it does not change what they learn.
        trajectories: folders of recorded trajectories, or buffers (`.pt` files) to import, used
            instead of those of `seeds` and `early`.
        checkpoints: weights of networks trained elsewhere, used instead of all of these: files, or
            names under which torchvision publishes weights.
        epoch: the networks of the explained kind are shown as they were after it; ``None`` for
            the last.

    Raises:
        ValueError: no expert is left, a seed is given twice, or there are two kinds of experts
            from elsewhere, or an epoch that they cannot have.
    """

    def __init__(
        self,
        *,
        seeds: Sequence[int],
        early: Early,
        held_out: Sequence[int],
        clean: Sequence[int],
        purified: Sequence[int],
        evaluation_seeds: Sequence[int],
        evaluation_checkpoints: Mapping[str, str],
        at_once: int,
        trajectories: Sequence[str],
        checkpoints: Sequence[str],
        epoch: int | None,
    ) -> None:
        if at_once < 1:
            raise ValueError(f"experts.at_once is {at_once}: give 1 or more")
        if trajectories and checkpoints:
            raise ValueError(
                "experts.trajectories and experts.checkpoints are both given: leave one of them "
                "empty"
            )
        if epoch is not None and (epoch < 0 or checkpoints):
            why = "negative" if epoch < 0 else "given, and checkpoints have no epochs"
            raise ValueError(f"experts.epoch is {epoch}, {why}: set it to null for the last")
        # What was trained elsewhere takes the place of what is trained here.
        elsewhere = bool(trajectories or checkpoints)
        self.seeds = [] if elsewhere else list(seeds)
        self.early = replace(early, seeds=[]) if elsewhere else early
        self.checkpoints, self.epoch = list(checkpoints), epoch
        self.held_out, self.clean, self.purified = list(held_out), list(clean), list(purified)
        self.evaluation_seeds, self.at_once = list(evaluation_seeds), at_once
        self.evaluation_checkpoints = dict(evaluation_checkpoints)
        self.trajectories = list(trajectories)
        if not self.seeds and not elsewhere:
            raise ValueError(
                "a study needs an expert: give experts.seeds at least one seed, or networks that "
                "were trained elsewhere as experts.checkpoints=[<file>]"
            )
        # A held-out expert is one that no method has seen.
        together = [*self.seeds, *self.early.seeds, *self.held_out]
        for names, given in (
            ("seeds, experts.early.seeds and experts.held_out", together),
            ("clean", self.clean),
            ("purified", self.purified),
            ("evaluation_seeds", self.evaluation_seeds),
        ):
            if twice := [seed for seed, count in Counter(given).items() if count > 1]:
                raise ValueError(
                    f"seed {twice[0]} is given twice in experts.{names}: give each once"
                )
        if self.early.seeds and self.early.epochs < 1:
            raise ValueError(
                f"experts.early.epochs is {self.early.epochs}: give 1 or more, or no "
                "experts.early.seeds"
            )

    def check(
        self, *, images: int, evaluation_networks: Collection[str], recipe: Configuration
    ) -> None:
        """Refuse what no training can give, before any begins.

        Args:
            images: how many there are to train on.
            evaluation networks: the names of the evaluation networks of other architectures.
            recipe: the resolved settings of the training.

        Raises:
            ValueError: a network would have to be trained without images, or shown at an epoch
                that it does not reach or that is not recorded, or there are weights of no evaluation network.
        """
        if unknown := [
            name for name in self.evaluation_checkpoints if name not in evaluation_networks
        ]:
            choices = (
                f"give it as one of {', '.join(evaluation_networks)}"
                if evaluation_networks
                else "there are none"
            )
            raise ValueError(
                f"experts.evaluation_checkpoints has weights of {unknown[0]!r}, and no evaluation network is called "
                f"so: {choices}, or add the evaluation network with +network@evaluation_networks.{unknown[0]}=<network>"
            )
        wanted = {
            "seeds": self.seeds,
            "early.seeds": self.early.seeds,
            "held_out": self.held_out,
            "clean": self.clean,
            "evaluation_seeds": self.evaluation_seeds
            if set(evaluation_networks) - set(self.evaluation_checkpoints)
            else [],
        }
        if images == 0 and (needed := [f"experts.{n}" for n, seeds in wanted.items() if seeds]):
            raise ValueError(
                f"the data have no training images, and {', '.join(needed)} ask for networks to "
                "be trained: give experts.checkpoints=[…] instead of seeds, and set "
                "experts.held_out=[] and experts.evaluation_seeds=[], or give "
                "experts.evaluation_checkpoints"
            )
        whole = recipe.get("epochs")
        if self.epoch is not None and whole is not None and (self.seeds or self.held_out):
            self._check_epoch(self.epoch, whole, recipe.get("recording", {}).get("epochs"))

    @staticmethod
    def _check_epoch(epoch: int, whole: int, recorded: int | None) -> None:
        if epoch > whole:
            raise ValueError(
                f"experts.epoch is {epoch}, and recipe.epochs is {whole}: give {whole} or less, "
                "or raise recipe.epochs"
            )
        kept = Recording(epochs=recorded).kept(whole)
        if epoch not in kept:
            raise ValueError(
                f"experts.epoch is {epoch}, and recipe.recording.epochs={recorded} keeps "
                f"{listed(kept)} alone: choose one of these, or raise it to {epoch}"
            )

    def trained(self, evaluation_networks: Collection[str]) -> list[str]:
        """Which kinds are to be had by training: ``network``, the explained one, and evaluation networks."""
        explained = self.seeds or self.early.seeds or self.held_out or self.clean
        prepare_subject = [
            name for name in evaluation_networks if name not in self.evaluation_checkpoints
        ]
        return [
            *(["network"] if explained else []),
            *(prepare_subject if self.evaluation_seeds else []),
        ]

    def kinds(self) -> list[str]:
        """The kinds of networks that methods may explain, evaluation networks apart."""
        there = {"expert": True, "held-out": bool(self.held_out), "clean": bool(self.clean)}
        return [kind for kind, given in there.items() if given]

    def evaluation_networks(self, names: Collection[str]) -> list[str]:
        """Those of the evaluation networks, by name, of which there is to be a network."""
        return [
            name for name in names if self.evaluation_seeds or name in self.evaluation_checkpoints
        ]

    def epochs(self, whole: int | None) -> dict[str, int]:
        """How far the experts that methods use are trained, by the setting that says so.

        Args:
            whole: of the recipe; ``None`` if it does not say.
        """
        found = {"recipe.epochs": whole} if self.seeds and whole is not None else {}
        found |= {"experts.early.epochs": self.early.epochs} if self.early.seeds else {}
        return found | ({"experts.checkpoints": 0} if self.checkpoints else {})
