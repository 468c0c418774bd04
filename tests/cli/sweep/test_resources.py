"""The environments of parallel jobs: clean, with their GPUs and cores."""

import pytest

from cwx.cli.sweep import resources
from cwx.cli.sweep.resources import job_environments, without_rank_variables

LEAKING = {
    "LOCAL_RANK": "1",
    "RANK": "1",
    "NODE_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1234",
    "PL_GLOBAL_SEED": "3",
    "TORCHELASTIC_RUN_ID": "x",
    "WANDB_RUN_ID": "abc",
    "WANDB_SERVICE": "2-1-tcp-localhost-1",
    "CWX_LAUNCHED": "60",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "1",
    "STANDALONE_PORT": "1234",
}
KEPT = {"PATH": "/bin", "WANDB_MODE": "offline", "WANDB_PROJECT": "mine", "PYTHONPATH": "src"}
KEPT |= {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8"}


def test_variables_of_another_group_or_run_are_removed():
    assert without_rank_variables({**LEAKING, **KEPT}) == KEPT


def environments(n_jobs, *, gpus=(), each=None, cores=8, **inherited):
    return job_environments(
        inherited, n_jobs=n_jobs, gpus_per_job=each, gpus=list(gpus), cores=cores
    )


@pytest.mark.parametrize(
    ("n_jobs", "gpus", "each", "expected"),
    [
        (1, "0123", None, [None]),
        (2, "", None, [None, None]),
        (2, "01", None, ["0", "1"]),
        (2, "0123", None, ["0,1", "2,3"]),
        (2, "01234", None, ["0,1", "2,3"]),
        (3, "01", None, ["0", "1", "0"]),
        (2, "0123", 1, ["0", "1"]),
        (1, "0123", 2, ["0,1"]),
        (2, "01", 0, ["", ""]),
    ],
)
def test_gpus_are_divided(n_jobs, gpus, each, expected):
    result = environments(n_jobs, gpus=gpus, each=each)
    assert [environment.get("CUDA_VISIBLE_DEVICES") for environment in result] == expected


def test_too_many_gpus_per_job_are_refused():
    with pytest.raises(ValueError, match=r"gpus_per_job is 2, for 2 jobs.*GPUs is 3: lower"):
        environments(2, gpus="012", each=2)


@pytest.mark.parametrize(
    ("n_jobs", "inherited", "expected"),
    [(1, {}, None), (2, {}, "4"), (3, {}, "2"), (99, {}, "1"), (2, {"OMP_NUM_THREADS": "7"}, "7")],
)
def test_cores_are_divided_unless_omp_num_threads_is_set(n_jobs, inherited, expected):
    threads = {e.get("OMP_NUM_THREADS") for e in environments(n_jobs, **inherited)}
    assert threads == {expected}


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("2,3", ["2", "3"]), ("GPU-ab", ["GPU-ab"]), ("", []), ("-1", []), (" 0 , 1", ["0", "1"])],
)
def test_visible_gpus_are_those_of_the_environment_variable(visible, expected):
    assert resources.gpus({"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_there_are_no_gpus_without_a_driver(monkeypatch):
    monkeypatch.setattr(resources, "_DRIVERS", ("/nowhere",))
    assert resources.gpus({}) == []
    assert resources.cores() >= 1


def test_torch_counts_the_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "_DRIVERS", (str(tmp_path),))
    count = "class cuda:\n    device_count = staticmethod(lambda: {})\n"
    (tmp_path / "torch.py").write_text("print('hello')\n" + count.format(2))
    assert resources.gpus({"PYTHONPATH": str(tmp_path)}) == ["0", "1"]
    (tmp_path / "torch.py").write_text("raise ImportError")
    assert resources.gpus({"PYTHONPATH": str(tmp_path)}) == []
