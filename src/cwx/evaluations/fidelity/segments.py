"""The values of one segment of one expert: distances, calibration and predictions."""

import torch
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.data.trajectory_segments import read_segment
from cwx.evaluations.fidelity.real_data import RealData, lowest
from cwx.evaluations.predictions import matching_fraction, predicted_classes
from cwx.explanations.images import Explanations
from cwx.functional.inner_loop import Inner
from cwx.functional.loss_derivatives import Eager
from cwx.functional.network_loss import NetworkLoss
from cwx.functional.trajectory_distance import squared_distance
from cwx.storage.trajectories import Trajectory
from cwx.training.subject import Subject


class SegmentMeasurement:
    """Measures segments [k, k + N] of experts; see `cwx.evaluations.fidelity.evaluation`.

    Args:
        subject: the data, the kind of network and the replicas.
        explanations: S.
        inner: how to train on S.
        span: N, in epochs.
        real: trains on real images; ``None`` for no such training.
        test: the test images for predictions. Batch norm uses the statistics of each test batch
            for every network, as θ_M has no running statistics.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        explanations: Explanations,
        inner: Inner,
        span: int,
        real: RealData | None,
        test: ImageSet,
    ) -> None:
        self.subject, self.inner, self.span = subject, inner, span
        self.real, self.test = real, test
        self.device = subject.device
        self.loss = NetworkLoss(subject.network().to(self.device))
        self.derivatives = Eager(self.loss)
        learned = explanations.inner_learning_rate
        self.rate = torch.tensor(inner.learning_rate) if learned is None else learned
        self.images = explanations.images.to(self.device)
        self.labels = explanations.labels.to(self.device)
        # By start epoch: the best learning rate on real images of the first expert.
        self._real_rates: dict[int, float] = {}

    def __call__(self, trajectory: Trajectory, start: int, *, real: bool) -> dict[str, float | str]:
        """The columns of the table ``fidelity``; a value that is not measured is empty.

        Args:
            real: whether to train on real images as well, which takes most of the time.
        """
        segment = read_segment(trajectory, self.loss.vector, start=start, span=self.span)
        begin, target = (vector.to(self.device) for vector in segment)
        descent = self.inner.descent(self.labels, key=(start,))
        end = descent.reach(self.derivatives, begin, self.images, self.rate.to(self.device))
        replica = self._replica_end(trajectory, start)
        reference = squared_distance(begin, target).item()

        def ratio(vector: Tensor | None) -> float | str:
            return "" if vector is None else squared_distance(vector, target).item() / reference

        return {
            "matched": squared_distance(end, target).item(),
            "reference": reference,
            "ratio": ratio(end),
            "replica": ratio(replica),
            "real": ratio(self._real_end(start, begin, target) if real else None),
            "real_rate": self._real_rates.get(start, "") if real else "",
            **self._predictions(begin=begin, target=target, end=end, replica=replica),
        }

    def _replica_end(self, trajectory: Trajectory, start: int) -> Tensor | None:
        replica = self.subject.replicas.get((trajectory.path.name, start))
        if replica is None:
            return None
        return self.loss.vector(replica.state(replica.epochs)).to(self.device)

    def _real_end(self, start: int, begin: Tensor, target: Tensor) -> Tensor | None:
        """The end of M steps on real images, at the best learning rate of the first expert."""
        if self.real is None:
            return None
        descent = self.real.descent(self.inner.steps, key=(start,))

        def reach(rate: float) -> Tensor:
            return descent.reach(self.derivatives, begin, begin[:0], torch.tensor(rate))

        if start in self._real_rates:
            return reach(self._real_rates[start])
        ends: dict[float, Tensor] = {}

        def distance(rate: float) -> float:
            ends[rate] = reach(rate)
            return squared_distance(ends[rate], target).item()

        best = self._real_rates[start] = lowest(distance, self.rate.item())
        return ends[best]

    def _predictions(
        self, *, begin: Tensor, target: Tensor, end: Tensor, replica: Tensor | None
    ) -> dict[str, float | str]:
        vectors = {"begin": begin, "target": target, "end": end}
        if replica is not None:
            vectors["replica"] = replica
        classes = {
            name: predicted_classes(self.subject, self.loss, vector, self.test)
            for name, vector in vectors.items()
        }
        agreement = {name: matching_fraction(c, classes["target"]) for name, c in classes.items()}
        accuracy = {name: matching_fraction(c, self.test.labels) for name, c in classes.items()}
        return {
            "agreement": agreement["end"],
            "agreement_start": agreement["begin"],
            "agreement_replica": agreement.get("replica", ""),
            "accuracy": accuracy["end"],
            "accuracy_start": accuracy["begin"],
            "accuracy_expert": accuracy["target"],
        }
