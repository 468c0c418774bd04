"""An error on one rank ends all ranks, also those in a collective operation."""

import os
import pickle
import signal
import socket
import time

import pytest
from support.builders import experts, stages
from support.forked import ForkedProcess

from cwx.training.rank_failures import _portable, ended_together

# The rank that fails, an error, and what the other does meanwhile.
SCRIPT = """
import sys
from pathlib import Path
from torch import distributed as dist
from cwx.training.rank_failures import await_all_ranks, ended_together, raised_on_all_ranks

place, rank, failing, collective = sys.argv[1], *map(int, sys.argv[2:])
folder = Path(place)


def reported(error):
    (folder / f"reported-{rank}").write_text(f"{type(error).__name__}: {error}")


with ended_together(reported):
    dist.init_process_group("gloo", init_method=f"file://{place}/group", rank=rank, world_size=2)
    dist.barrier()
    with raised_on_all_ranks():
        if rank == failing:
            raise OSError("the image 17.png is damaged")
        dist.barrier() if collective else await_all_ranks()
"""


@pytest.fixture
def ended(tmp_path):
    """Runs the script on both ranks; returns their outputs."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def run(failing, *, collective):
        processes = [
            ForkedProcess(
                str(tmp_path / "script.py"),
                [tmp_path, rank, failing, int(collective)],
                folder=tmp_path,
                environment={"OMP_NUM_THREADS": "1"},
            )
            for rank in range(2)
        ]
        try:
            outputs = [process.communicate(timeout=60)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [1, 1], outputs
        return outputs

    return run


def test_the_first_rank_reports_an_error_from_within_a_collective_operation(ended, tmp_path):
    outputs = ended(1, collective=True)
    assert (tmp_path / "reported-0").read_text() == "OSError: the image 17.png is damaged"
    # Rank 1 waits for rank 0, and leaves the message to it.
    assert not any("Traceback" in output for output in outputs)
    assert not (tmp_path / "reported-1").exists()


@pytest.mark.parametrize("collective", [True, False])
def test_the_other_ranks_end_with_the_first(ended, tmp_path, collective):
    outputs = ended(0, collective=collective)
    assert "OSError: the image 17.png is damaged" in outputs[0]
    assert "Traceback" not in outputs[1]
    assert not list(tmp_path.glob("reported-*"))


def test_a_rank_that_waits_raises_the_error_with_its_traceback(ended, tmp_path):
    outputs = ended(1, collective=False)
    assert "OSError: the image 17.png is damaged\nraised on rank 1:\nTraceback" in outputs[0]
    assert "Traceback" not in outputs[1]
    assert not list(tmp_path.glob("reported-*"))


# Both ranks, whose main threads wait as within a collective operation of NCCL; a rank that is to
# leave ends its work before.
LOST = """
import sys
import time
from pathlib import Path
from torch import distributed as dist
from cwx.training import rank_failures
from cwx.training.rank_failures import ended_together

rank_failures._BEAT, rank_failures._LOOKS, rank_failures._ALONE = 0.1, 15, 1.0
port, rank, leaves, seconds = map(int, sys.argv[1:])


def reported(error):
    Path(f"reported-{rank}").write_text(f"{type(error).__name__}: {error}")


with ended_together(reported):
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    dist.barrier()
    while not rank_failures._store().add(f"signs/{rank}", 0):
        time.sleep(0.02)
    Path(f"ready-{rank}").touch()
    if rank != leaves:
        time.sleep(seconds)
Path(f"ended-{rank}").touch()
if rank == leaves:
    time.sleep(seconds)
"""


def start_both(folder, *, leaves, seconds):
    (folder / "lost.py").write_text(LOST)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        ForkedProcess(
            str(folder / "lost.py"),
            [port, rank, leaves, seconds],
            folder=folder,
            environment={"OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    deadline = time.monotonic() + 60
    while not all((folder / f"ready-{rank}").exists() for rank in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return processes


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_is_killed_is_missed_on_any_machine(tmp_path, lost):
    processes = start_both(tmp_path, leaves=-1, seconds=100)
    try:
        os.kill(processes[lost].pid, signal.SIGKILL)
        output, _ = processes[1 - lost].communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
    assert processes[1 - lost].returncode == 1, output
    assert not (tmp_path / f"ended-{1 - lost}").exists()
    if lost:
        reported = (tmp_path / "reported-0").read_text()
        assert reported.startswith("LostRankError: rank 1 has given no sign of life for ")
    else:
        assert not (tmp_path / "reported-1").exists()


def test_a_rank_that_has_done_its_part_is_not_missed(tmp_path):
    processes = start_both(tmp_path, leaves=1, seconds=4)
    try:
        outputs = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert (tmp_path / "ended-0").exists()
    assert not list(tmp_path.glob("reported-*"))


def test_an_error_in_a_stage_is_announced(tmp_path, data, monkeypatch):
    announced = []
    where = "cwx.training.callbacks.announce_errors.announce"
    monkeypatch.setattr(where, lambda error: announced.append(str(error)))

    def damaged(*_):
        raise ValueError("damaged")

    module = experts(data, [0])
    monkeypatch.setattr(module, "training_step", damaged)
    with pytest.raises(ValueError, match="damaged"):
        stages().fit(module, tmp_path / "stage.ckpt", [])
    assert announced == ["damaged"]


class Unreadable(Exception):
    def __init__(self, *, size):
        super().__init__(f"{size} images")


def test_an_error_that_cannot_be_sent_keeps_its_message():
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(Unreadable(size=2)))
    sent = _portable(Unreadable(size=2))
    assert (type(sent), str(sent)) == (RuntimeError, "Unreadable: 2 images")
    large = _portable(ValueError("x" * 2**21))
    assert type(large) is ValueError
    small = _portable(KeyError("a"))
    assert (type(small), small.args) == (KeyError, ("a",))


def test_a_single_process_raises_as_usual():
    def never(error):
        raise AssertionError

    with pytest.raises(ValueError, match="damaged"), ended_together(never):
        raise ValueError("damaged")
