import logging
import math
import pickle
import re
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from cwx.storage.trajectories import Recorder, TrajectoryStore
from cwx.training.importing.expert_buffer import import_buffer


def network(inputs=2):
    return nn.Sequential(nn.Linear(inputs, 3), nn.PReLU(), nn.Linear(3, 2))


def weights(experts=2, epochs=3, of=None):
    """A buffer's nested lists, every tensor different."""
    generator = torch.Generator().manual_seed(0)
    shapes = [p.shape for p in (of or network()).parameters()]
    return [
        [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(epochs)]
        for _ in range(experts)
    ]


@pytest.fixture
def store(tmp_path):
    return TrajectoryStore(tmp_path / "store")


def saved(folder, value, **settings) -> Path:
    path = folder / "buffer.pt"
    torch.save(value, path, **settings)
    return path


def as_parameters(value):
    return [[[nn.Parameter(t) for t in tensors] for tensors in epochs] for epochs in value]


def converted(dtype):
    return lambda value: [[[t.to(dtype) for t in ts] for ts in epochs] for epochs in value]


def as_views(value):
    """Transposed, and each a part of the same storage."""
    flat = torch.cat([t.t().flatten() for epochs in value for ts in epochs for t in ts])
    parts = iter(flat.split([t.numel() for epochs in value for ts in epochs for t in ts]))
    return [[[next(parts).view(t.t().shape).t() for t in ts] for ts in epochs] for epochs in value]


KINDS = {
    "tensors": lambda value: value,
    "views": as_views,
    "parameters": as_parameters,
    "expanded": lambda value: [
        [[t.flatten()[:1].expand(t.shape) for t in ts] for ts in epochs] for epochs in value
    ],
    "float64": converted(torch.float64),
    "bfloat16": converted(torch.bfloat16),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_imported_states_equal_the_saved_states(tmp_path, store, kind, zipped):
    value = KINDS[kind](weights(experts=2, epochs=3))
    path = saved(tmp_path, value, _use_new_zipfile_serialization=zipped)
    found = import_buffer(path, network(), store)
    assert len(found) == 2
    names = [name for name, _ in network().named_parameters()]
    for trajectory, epochs in zip(found, value, strict=True):
        assert trajectory.recorded_epochs == (0, 1, 2)
        for epoch, tensors in enumerate(epochs):
            state = trajectory.state(epoch)
            assert set(state) == set(names)
            assert all(torch.equal(state[n], t) for n, t in zip(names, tensors, strict=True))
            assert all(tensor.dtype == torch.float32 for tensor in state.values())
            assert math.isnan(trajectory.accuracy(epoch))
    loaded = network()
    found[1].check(loaded)
    found[1].load_into(loaded, 2)
    assert all(torch.equal(p, t) for p, t in zip(loaded.parameters(), value[1][2], strict=True))


def files(store):
    return {
        f: f.stat().st_mtime_ns for f in store.root.rglob("*") if f.suffix != "" and f.is_file()
    }


def test_a_buffer_is_imported_once_whatever_its_path(tmp_path, store):
    path = saved(tmp_path, weights())
    first = import_buffer(path, network(), store)
    before = files(store)
    again = import_buffer(path.rename(tmp_path / "moved.pt"), network(), store)
    assert [t.path for t in first] == [t.path for t in again]
    assert len({t.path for t in first}) == 2
    assert files(store) == before
    assert [t.path for t in first] == [store.path(t.identity) for t in first]


def test_other_tensors_or_another_order_of_parameters_are_other_experts(tmp_path, store):
    class Pair(nn.Module):
        def __init__(self, *names):
            super().__init__()
            for name in names:
                self.register_parameter(name, nn.Parameter(torch.zeros(2)))

    value = weights(of=Pair("a", "b"))
    path = saved(tmp_path, value)
    one, two = (import_buffer(path, Pair(*order), store) for order in ("ab", "ba"))
    (other,) = import_buffer(saved(tmp_path, value[:1]), Pair("a", "b"), store)
    assert not {t.path for t in one} & {t.path for t in two}
    assert other.path not in {t.path for t in (*one, *two)}
    assert torch.equal(one[0].state(1)["a"], two[0].state(1)["b"])


def test_two_jobs_import_each_expert_once(tmp_path, store, monkeypatch):
    record, recorded, found = Recorder.record, [], []

    def counted(self, epoch, state, accuracy):
        recorded.append((self.path, epoch))
        record(self, epoch, state, accuracy)

    monkeypatch.setattr(Recorder, "record", counted)
    path = saved(tmp_path, weights(experts=3, epochs=4))
    jobs = [
        threading.Thread(target=lambda: found.append(import_buffer(path, network(), store)))
        for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(recorded) == len(set(recorded)) == 12
    assert len({tuple(t.path for t in trajectories) for trajectories in found}) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full")])
def test_an_interrupted_import_is_not_complete(tmp_path, store, monkeypatch, error):
    path, record = saved(tmp_path, weights(experts=1, epochs=3)), Recorder.record

    def cut(self, epoch, state, accuracy):
        if epoch == 2:
            raise error
        record(self, epoch, state, accuracy)

    monkeypatch.setattr(Recorder, "record", cut)
    with pytest.raises(type(error)):
        import_buffer(path, network(), store)
    assert list(store.root.rglob("state-0001.*"))
    assert not list(store.root.rglob("complete.json"))
    monkeypatch.undo()
    (found,) = import_buffer(path, network(), store)
    assert found.recorded_epochs == (0, 1, 2)


def test_one_epoch_is_copied_at_a_time(tmp_path, store, monkeypatch):
    """Nothing of an expert is read before the states before it are on disk."""
    value, record = weights(experts=2, epochs=3), Recorder.record
    value[1][1][0][0] = math.nan
    written = []

    def noted(self, epoch, state, accuracy):
        written.append(epoch)
        record(self, epoch, state, accuracy)

    monkeypatch.setattr(Recorder, "record", noted)
    with pytest.raises(ValueError, match=r"0.weight in epoch 1 of expert 1 of .* is not finite"):
        import_buffer(saved(tmp_path, value), network(), store)
    assert written == [0, 1, 2, 0]
    assert len(list(store.root.rglob("complete.json"))) == 1


def test_weights_beyond_the_networks_precision_are_refused(tmp_path, store):
    value = converted(torch.float64)(weights())
    value[0][0][0][0] = 1e300
    with pytest.raises(ValueError, match="not finite in torch.float32"):
        import_buffer(saved(tmp_path, value), network(), store)


W = weights(1, 1)[0][0]

MISSHAPEN = {
    "no list": ({"a": W}, "is a dict, not a list of experts: a buffer is a list of experts"),
    "a tensor": (W[0], "is a tensor of torch.float32"),
    "empty": ([], "is an empty list, not a list of experts"),
    "no epochs": ([[[*W]], []], "expert 1 of {path} is an empty list, not a list of epochs"),
    "no expert level": ([[*W]], "epoch 0 of expert 0 of {path} is a tensor of torch.float32"),
    "no tensors": ([[[]]], "epoch 0 of expert 0 of {path} is an empty list, not a list of tensors"),
    "metrics": ([[[1.0]]], "epoch 0 of expert 0 of {path} holds a float, not a floating tensor"),
    "integers": ([[[torch.ones(3, 2).int()]]], "holds a tensor of torch.int32"),
    "sparse": ([[[torch.ones(3, 2).to_sparse(), *W[1:]]]], "torch.sparse_coo"),
    "meta": ([[[torch.ones(3, 2, device="meta"), *W[1:]]]], "torch.strided, meta"),
    "deeper": ([[[[*W]]]], "epoch 0 of expert 0 of {path} holds a list"),
    "too few": ([[W[:4]]], "epoch 0 of expert 0 of {path} is of another network: it has no 2.bias"),
    "too many": ([[[*W, W[0]]]], "it has tensor 5, unknown here; choose the network of"),
    "other": (
        [[W], [W, [W[0].T, *W[1:]]]],
        "epoch 1 of expert 1 of {path} is of another network: 0.weight is (2, 3) there, (3, 2) "
        "here; choose the network of the buffer",
    ),
}


@pytest.mark.filterwarnings("ignore:.*[Ss]parse")
@pytest.mark.parametrize("case", MISSHAPEN)
def test_an_invalid_buffer_is_refused(tmp_path, store, case):
    value, message = MISSHAPEN[case]
    path = saved(tmp_path, value)
    with pytest.raises(ValueError, match=re.escape(message.format(path=path))):
        import_buffer(path, network(), store)
    assert not store.root.exists()


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def hostile(path, value):
    with path.open("wb") as file:
        pickle.dump(value, file)


WRITERS = {
    "zipped": lambda path, value: torch.save(value, path),
    "legacy": lambda path, value: torch.save(value, path, _use_new_zipfile_serialization=False),
    "pickle": hostile,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, store, writer):
    path, mark = tmp_path / "buffer.pt", tmp_path / "mark"
    WRITERS[writer](path, [[[*W]], Hostile(mark)])
    with pytest.raises(ValueError, match=f"{path} is .*not plain tensors.*no code in it was run"):
        import_buffer(path, network(), store)
    assert not mark.exists()
    assert not store.root.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))
    assert mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("fraction", [0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(tmp_path, store, fraction, zipped):
    path = saved(tmp_path, weights(), _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(ValueError, match=f"the buffer {path} is truncated, damaged or"):
        import_buffer(path, network(), store)
    assert not store.root.exists()


def test_a_missing_file_is_refused(tmp_path, store):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ValueError, match=f"the buffer {path} cannot be read"):
            import_buffer(path, network(), store)


def test_missing_running_statistics_are_logged(tmp_path, store, caplog):
    normed = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with caplog.at_level(logging.WARNING):
        (found, _) = import_buffer(saved(tmp_path, weights(of=normed)), normed, store)
    assert "holds only parameters, no 1.running_mean" in caplog.text
    found.check(normed)
    with pytest.raises(ValueError, match="it has no 1.running_mean; imported buffers"):
        found.load_into(normed, 0)
