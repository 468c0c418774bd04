"""The subject of a study: its networks, imported, read from the store, or trained."""

import hashlib
from collections.abc import Mapping, Sequence

from cwx.data.datamodule import ImageData
from cwx.storage.trajectories import Trajectory
from cwx.training.bank import Bank
from cwx.training.build import NetworkFactory, trained_network
from cwx.training.experts import Experts
from cwx.training.importing.load import ImportedNetworks
from cwx.training.provider import Training
from cwx.training.subject import Subject


def prepare_subject(
    training: Training,
    experts: Experts,
    evaluation_networks: Mapping[str, NetworkFactory],
    data: ImageData,
    imported: ImportedNetworks,
) -> Subject:
    """The subject of a study: its networks, imported, read from the store, or trained.

    Args:
        evaluation_networks: build networks of other architectures, by name.
        imported: the networks trained elsewhere, as `import_networks` returns them.
    """
    training.record_external("experts", imported.experts)
    for name, trajectories in imported.evaluation_networks.items():
        training.record_external(name, trajectories)
    trained = training.experts("expert", seeds=[*experts.seeds, *experts.held_out], data=data)
    early = _early_experts(training, experts, data, imported)
    bank = training.experts("bank", seeds=experts.bank.seeds, data=data.uncorrupted())
    clean = training.experts("clean", seeds=experts.clean, data=data.uncorrupted())
    evaluation_trajectories = {
        name: imported.evaluation_networks.get(name)
        or training.evaluation_networks(
            name, evaluation_networks[name], seeds=experts.evaluation_seeds, data=data
        )
        for name in experts.evaluation_networks(evaluation_networks)
    }
    subject = Subject(
        data=data,
        factory=training.network,
        trajectories=imported.experts or trained[: len(experts.seeds)],
        early=early[: len(experts.early.seeds)],
        early_held_out=early[len(experts.early.seeds) :],
        held_out=trained[len(experts.seeds) :],
        evaluation_networks={
            name: [trained_network(evaluation_networks[name], data, t) for t in trajectories]
            for name, trajectories in evaluation_trajectories.items()
        },
        evaluation_trajectories=evaluation_trajectories,
        clean=clean,
        bank=Bank(trajectories=[*imported.bank, *bank]),
        device=training.stages.device,
        epoch=experts.epoch,
        continued_epochs=experts.early.epochs if experts.continues else None,
    )
    network = subject.network()
    check_bank(subject.trajectories if len(subject.bank) else [], subject.bank.trajectories)
    for trajectory in (*subject.fitted, *subject.held_out, *subject.early_held_out):
        trajectory.check(network)
    return subject


def check_bank(explained: Sequence[Trajectory], bank: Sequence[Trajectory]) -> None:
    """Refuse a bank that has a network twice, or an explained network.

    Networks are compared by their weights: one network may be saved in several files.

    Raises:
        ValueError: names the network.
    """
    known = {_weights_digest(trajectory): "is the explained network" for trajectory in explained}
    for trajectory in bank:
        weights = _weights_digest(trajectory)
        if reason := known.get(weights):
            raise ValueError(
                f"a network of experts.bank ({trajectory.path}) {reason}: a network cannot be "
                "compared with itself; leave it out of the bank"
            )
        known[weights] = "is in the bank twice"


def _weights_digest(trajectory: Trajectory) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(trajectory.state(trajectory.epochs).items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _early_experts(
    training: Training, experts: Experts, data: ImageData, imported: ImportedNetworks
) -> list[Trajectory]:
    """The early experts, then the early held-out ones."""
    seeds = [*experts.early.seeds, *experts.early.held_out]
    epochs = experts.early.epochs
    if not experts.continues:
        return training.experts("early", seeds=seeds, data=data, epochs=epochs)
    (start,) = imported.experts
    starts = {f"continued-{seed}": (start, start.epochs) for seed in seeds}
    # The identity of the checkpoint is its content.
    return training.continued(starts, seeds=seeds, data=data, role="start", epochs=epochs)
