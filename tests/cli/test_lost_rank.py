"""A run of two processes whose second one is killed ends, and continues."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from support.entry import run, start
from support.forked import ForkedProcess

from cwx.cli import run as entry
from cwx.cli.failures import explain_failure, has_lost_rank

# A process that hangs after its callback has seen a process start, and a child that lives on.
HANGS = """
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from cwx.training.callbacks.lost_ranks import EndWithLostRank

children = [subprocess.Popen(["sleep", "100"]) for _ in range(2)]
launcher = SimpleNamespace(procs=children)
callback = EndWithLostRank(lambda reason: print(reason, flush=True))
callback.setup(SimpleNamespace(strategy=SimpleNamespace(launcher=launcher)), None, "fit")
print(*(child.pid for child in children), file=open("children", "w"), flush=True)
if len(sys.argv) > 1:
    callback.on_exception(None, None, KeyboardInterrupt())
    children[1].kill()
    time.sleep(1.5)
    sys.exit(7)
time.sleep(100)
"""


def start_hanging(folder, *arguments):
    script = folder / "hangs.py"
    script.write_text(HANGS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    (folder / "children").unlink(missing_ok=True)
    process = ForkedProcess(str(script), arguments, folder=folder, environment=environment)
    children = folder / "children"
    # The file exists before its text is written.
    wait_until(lambda: children.exists() and children.read_text().endswith("\n"), process)
    return process, [int(pid) for pid in children.read_text().split()]


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_ended(pid):
    """Whether a process has ended, also if nobody has asked for its exit status yet."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_process_that_waits_for_a_killed_rank_ends_with_all_others(tmp_path):
    process, children = start_hanging(tmp_path)
    os.kill(children[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert output.strip() == (
        "the process of rank 2 was killed by SIGKILL, as the system does when memory runs out"
    )
    time.sleep(0.5)
    assert has_ended(children[0])


def test_ranks_that_lightning_kills_after_an_interrupt_are_not_lost(tmp_path):
    process, children = start_hanging(tmp_path, "interrupted")
    output, _ = process.communicate(timeout=20)
    os.kill(children[0], signal.SIGKILL)
    assert (process.returncode, output) == (7, "")


LOST = {
    "gloo": "[gloo/transport/tcp/pair.cc:545] Read error [::1]:5: Connection reset by peer. This",
    "closed": "[gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:37",
    "nccl": "NCCL error in: x.cpp:1, remote process exited or there was a network error",
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_connection_is_no_bug_and_said_by_the_first_process(monkeypatch, tmp_path, name):
    error = RuntimeError(LOST[name])
    assert has_lost_rank(error)
    message = explain_failure(error, "runs/x")
    assert message.startswith("the processes of this run have lost their connection (")
    assert message.endswith("continue with resume=runs/x")
    monkeypatch.setenv("LOCAL_RANK", "1")
    runtime = SimpleNamespace(output_dir=str(tmp_path))
    config = SimpleNamespace(runtime=runtime, mode=None, job=None)
    monkeypatch.setattr(entry.HydraConfig, "get", lambda: config)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(entry, "_run", fail)
    with pytest.raises(SystemExit) as caught:
        entry.job(None, resumed=True)
    assert caught.value.code == 1


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError(LOST["gloo"])])
def test_other_errors_are_not_taken_for_a_lost_connection(error):
    assert not has_lost_rank(error)


# Long enough for a kill.
TRAINING = [
    "network.width=4", "recipe.epochs=8", "recipe.batch_size=20", "data.per_class=15",
    "experts.seeds=[0]", "experts.held_out=[]",
    "experts.evaluation_seeds=[]", "experts.checkpoint_minutes=0.001", "method=[]",
    "evaluation=[accuracy]", "logger=[]", "trainer=ddp_cpu",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_training_with_a_killed_rank_ends_and_continues(tmp_path, lost):
    code, output = run(tmp_path, *TRAINING, "store=whole", "hydra.run.dir=whole-run")
    assert code == 0, output
    process = start(tmp_path, *TRAINING, "store=cut", "hydra.run.dir=cut-run")
    wait_until(lambda: [*(tmp_path / "cut").glob("*/*.ckpt")], process)
    time.sleep(0.5)
    (rank,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(rank) if lost else process.pid, signal.SIGKILL)
    begin = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - begin < 20
    while not has_ended(rank):
        assert time.monotonic() - begin < 20
        time.sleep(0.02)
    status = json.loads((tmp_path / "cut-run/status.json").read_text())
    if lost:
        assert process.returncode == 1
        assert "RuntimeError" not in output
        assert output.count("the process of rank 1 was killed by SIGKILL") == 1
        assert status["state"] == "failed"
        assert "rank 1 was killed by SIGKILL" in status["reason"]
    else:
        assert process.returncode == -signal.SIGKILL
        assert status["state"] == "running"
    code, output = run(tmp_path, "resume=cut-run")
    assert code == 0, output
    whole, cut = (sorted((tmp_path / store).glob("*/state-*")) for store in ("whole", "cut"))
    assert len(whole) == 9
    for one, two in zip(whole, cut, strict=True):
        a, b = load_file(one), load_file(two)
        assert all((a[name] == b[name]).all() for name in a)
    metrics = [(tmp_path / f"{name}-run/metrics.json").read_bytes() for name in ("whole", "cut")]
    assert metrics[0] == metrics[1]
