"""The statistics of a bank of clean networks, read from the store or measured."""

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cwx.evaluations.outcome import NeedsBank
from cwx.evaluations.predictions import divided_accuracy
from cwx.evaluations.verdict.statistics import Statistic
from cwx.storage.atomic import write_json, write_tensors
from cwx.storage.store_entries import remove_leftovers
from cwx.storage.trajectories import Identity, TrajectoryStore
from cwx.study.contracts import check_finite
from cwx.training.bank import Bank
from cwx.training.own_code import own_code
from cwx.training.ranks import Ranks
from cwx.training.stages import Configuration, Factory, Fittable, Stages
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

FILE = "statistics.safetensors"
# Beside the statistics: of the network on the test images.
_ACCURACY = "accuracy"
# Raise it when a method or a statistic gives other values for the same settings.
VERSION = 4


def measure_bank(subject: Subject, evaluations: Mapping[str, object], **settings: Any) -> Subject:
    """The subject with the statistics of its bank that evaluations need.

    Args:
        evaluations: by name.
        settings: of `BankMeasurement`.
    """
    if not len(subject.bank):
        return subject
    measure = BankMeasurement(**settings)
    for name, evaluation in evaluations.items():
        if isinstance(evaluation, NeedsBank):
            of_statistics = measure.configuration["evaluation"][name]["statistics"]
            bank = measure(subject, evaluation.bank_statistics, of_statistics)
            subject = replace(subject, bank=bank)
    return subject


class BankMeasurement:
    """Runs the methods of a study on every network of a bank, and keeps their statistics.

    The statistics of a network are an entry of the store, found again by the network, the images,
    the settings of the method and of the statistic, and the seed. All studies share them.

    Args:
        stages: fits the methods; without loggers.
        method: builds the methods, by name.
        store: holds the statistics.
        configuration: the resolved settings.
        seed: of the methods.
    """

    def __init__(
        self,
        *,
        stages: Stages,
        method: Mapping[str, Factory],
        store: TrajectoryStore,
        configuration: Configuration,
        seed: int,
    ) -> None:
        self.stages, self.method, self.store = stages, method, store
        self.configuration, self.seed = configuration, seed
        self.images: Mapping[str, str] = {}

    def __call__(
        self, subject: Subject, statistics: Mapping[str, Statistic], settings: Configuration
    ) -> Bank:
        """The bank of `subject` with its statistics.

        Args:
            statistics: by name.
            settings: the resolved settings of each statistic, by the same names.
        """
        bank, clean_data = subject.bank, subject.data.uncorrupted()
        by_network: list[dict[str, Tensor]] = []
        # A digest of all images, computed once.
        self.images = {"train": clean_data.fingerprint(), "test": clean_data.test_fingerprint()}
        start, measured = time.monotonic(), 0
        for index, trajectory in enumerate(bank.trajectories):
            # The bank was trained on the clean images.
            clean = Subject(
                data=clean_data,
                factory=subject.factory,
                trajectories=[trajectory],
                held_out=[],
                evaluation_networks={},
                epoch=subject.epoch_in(trajectory),
                device=subject.device,
            )
            values: dict[str, Tensor] = {}
            for name, statistic in statistics.items():
                identity = self._identity(clean, statistic.source, settings[name])
                stage = f"bank-{index}-{statistic.source}"
                of_network, is_new = self._provide(stage, identity, clean, statistic)
                values |= of_network
                measured += is_new
            by_network.append(values)
            if measured:
                left = (time.monotonic() - start) / (index + 1) * (len(bank) - index - 1)
                line = "bank: %d of %d networks measured, about %.0f minutes left"
                log.info(line, index + 1, len(bank), left / 60)
        names = [name for name in (by_network[0] if by_network else {}) if name != _ACCURACY]
        return replace(
            bank,
            accuracies=[float(values[_ACCURACY]) for values in by_network],
            statistics={name: torch.stack([v[name] for v in by_network]) for name in names},
        )

    def _identity(self, clean: Subject, source: str, statistic: Any) -> Identity:
        method, network = self.configuration["method"][source], self.configuration["network"]
        code = own_code([statistic, method, network])
        return {
            **({"code": code} if code else {}),
            "statistic": statistic,
            "version": VERSION,
            "method": method,
            "architecture": network,
            "trajectory": clean.trajectories[0].path.name,
            "epoch": clean.epoch,
            **self.images,
            "precision": self.configuration["precision"]["methods"],
            "seed": self.seed,
        }

    def _read(self, identity: Identity) -> dict[str, Tensor] | None:
        """The statistics in the store; ``None`` if they are not there."""
        path = self.store.path(identity)
        if not (path / "complete.json").exists():
            return None
        try:
            return load_file(path / FILE)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{path / FILE} is damaged ({error}): delete the folder to measure it again"
            ) from error

    def _provide(
        self, stage: str, identity: Identity, clean: Subject, statistic: Statistic
    ) -> tuple[dict[str, Tensor], bool]:
        """The statistics of a network of the bank, and whether they are new in the store.

        If the store lacks them, the method is run on the network.
        """
        with ExitStack() as locks:
            if self.stages.is_rank_zero:
                waiting = f"another job measures {stage}: waiting for it"
                locks.enter_context(self.store.lock(identity, waiting))
            # Rank 0 decides: while it holds the lock, the store cannot change.
            stored: dict[str, Tensor] | None = self.stages.broadcast(self._read(identity))
            if stored is not None:
                return stored, False
            path = self.store.path(identity)
            checkpoint = path / f"checkpoint-{path.name[:8]}.ckpt"
            if self.stages.is_rank_zero:
                write_json(path / "identity.json", identity)
            module = self.method[statistic.source](subject=clean, seed=self.seed, stage=stage)
            if isinstance(module, Fittable):
                self.stages.fit(module, checkpoint, [])
            # The process group begins with the first stage that is fitted.
            divided = replace(clean, ranks=Ranks.running())
            output = module.explanations()
            check_finite(statistic.source, output)
            values = dict(statistic(divided, output))
            network = clean.first_network("expert")
            on_test = divided_accuracy(divided, network, clean.data.splits.test)
            values[_ACCURACY] = torch.tensor(on_test, dtype=torch.float64)
            if self.stages.is_rank_zero:
                write_tensors(path / FILE, values, {})
                write_json(path / "complete.json", {"statistics": list(values)})
                remove_leftovers(path)
            self.stages.wait()
            return values, True
