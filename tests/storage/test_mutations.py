"""Every reader of foreign files survives random damage: success, or one error with a message."""

import io
import json
import os
import resource
import shutil
import time
import warnings
from collections import Counter
from contextlib import redirect_stdout

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save
from support.builders import small_mlp
from support.mutations import generator, mutate, mutate_values
from support.run_folders import make_explanations, make_full_run, make_run, make_sweep

from cwx.cli.commands import experts, ls
from cwx.cli.config import hydra_files
from cwx.data.datasets.constructed import read_constructed
from cwx.data.datasets.folders import ImageFolder, read_names
from cwx.data.splits import ImageSet, Splits
from cwx.data.taxonomy import File
from cwx.explanations.serialisation import read_explanations, write_explanations
from cwx.notebook import open_run
from cwx.report.figure_files import embed
from cwx.report.run import RunContents
from cwx.report.run_page import write_page
from cwx.report.training_curves import read_curves
from cwx.storage.shards import Shards
from cwx.storage.sweeps import read_jobs
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.importing.checkpoint import import_checkpoint
from cwx.training.importing.expert_buffer import import_buffer

# Every mutation of a reader counts this much: whole pages take half a second each.
COSTS = {"page": 50, "ls": 2, "experts": 2, "folder of images": 2}
SPLITS = Splits(
    ImageSet(torch.zeros(0, 3, 2, 2, dtype=torch.uint8), torch.zeros(0, dtype=torch.long)),
    ImageSet(torch.zeros(0, 3, 2, 2, dtype=torch.uint8), torch.zeros(0, dtype=torch.long)),
    ("cat", "dog"),
)


def network():
    return small_mlp(in_channels=3, image_size=(4, 4), num_classes=2)


def picture(kind):
    file = io.BytesIO()
    Image.effect_noise((9, 7), 50).convert("RGB").save(file, kind)
    return file.getvalue()


def torch_file(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def write_files(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def make_images(root):
    kinds = {"a.png": "PNG", "b.jpg": "JPEG", "c.bmp": "BMP", "d.gif": "GIF", "e.tiff": "TIFF",
             "f.webp": "WEBP", "g.ppm": "PPM"}  # fmt: skip
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            files = {f"{split}/{label}/{n}": picture(kind) for n, kind in kinds.items()}
            write_files(root, files)


def read_images(root):
    settings = dict(  # noqa: C408
        root=str(root), interpolation=None, channels=3, background="white",
                    white_level=None, synsets=None)  # fmt: skip
    ImageFolder(size=8, resize=None, **settings).load()


def make_page(root):
    row = {"class": "cat", "value": 0.5}
    metrics = {"fidelity/ratio": 0.25, "accuracy/expert/clean": 0.9}
    make_full_run(root, metrics=metrics, tables={"t": [row, row]}, paper={"fidelity/ratio": 0.2})
    shutil.rmtree(root / "logs")


def make_curves(root):
    rows = "".join(f"{n // 5},{n},{1 / (n + 1)},\n" for n in range(40))
    write_files(root, {"logs/version_0/metrics.csv": "epoch,step,expert-0/loss,b/c\n" + rows})


def make_runs(root):
    make_run(root / "intact", metrics={"a/b": 1.0}, overrides=["seed=0"])
    make_sweep(root / "sweep", ["seed=1"], common=["scale=small"], swept=["seed=1"])


def list_runs(root):
    ls.main([str(root), "--json"])
    ls.main([str(root)])


def make_store(root):
    entry = root / ("0" * 20)
    write_files(entry, {
        "identity.json": json.dumps({"network": {"_target_": "a.B", "width": 4}, "seed": 1}),
        "complete.json": json.dumps({"epochs": [0, 1]}),
        "uses.json": json.dumps({"/runs/a": {"last": "2026", "data": "digits"}}),
        "state-0001.safetensors": save({"w": torch.zeros(2)}, {"accuracy": "0.5"}),
    })  # fmt: skip


def list_store(root):
    experts.main(["--store", str(root), "--json"])
    experts.main(["--store", str(root)])


def make_trajectory(root):
    state = network().state_dict()
    write_files(root, {
        "identity.json": json.dumps({"seed": 1}),
        "complete.json": json.dumps({"epochs": [0]}),
        "state-0000.safetensors": save(state, {"accuracy": "0.5"}),
    })  # fmt: skip


def read_trajectory(root):
    trajectory = Trajectory(root)
    trajectory.accuracy(trajectory.epochs)
    trajectory.load_into(network(), trajectory.epochs)


def make_shards(root):
    shards = Shards(root, count=5, size=3)
    for number in range(2):
        rows = shards.rows(number)
        count = rows.stop - rows.start
        shards.write(number, {
            "images": torch.rand(count, 3, 4, 4), "labels": torch.zeros(count, dtype=torch.long),
        })  # fmt: skip
    shards.complete()


def read_all_tables(root):
    run = RunContents(folder=root, status={})
    assert isinstance(run.tables(), dict)


def make_constructed(root):
    write_files(root, {
        "CIFAR_ims": torch_file(torch.rand(3, 3, 4, 4)),
        "CIFAR_lab": torch_file(torch.zeros(3, dtype=torch.long)),
    })  # fmt: skip


def store(root):
    return TrajectoryStore(root / "store")


def make_notebook(root):
    make_page(root)


def read_notebook(root):
    run = open_run(root)
    _ = (run.metrics, run.settings, run.classes, run.table("t"), run.normalization)
    run.images("distill")
    run.real_images()


def make_hydra(root):
    run = make_run(root, overrides=["seed=1"], config={"seed": 1, "a": {"b": [1, "${seed}"]}})
    assert run


def read_hydra(root):
    hydra_files.overrides(root)
    hydra_files.read(root / ".hydra/config.yaml")


def make_sweep_jobs(root):
    job = {"number": 0, "folder": "0", "overrides": ["a=1"], "swept": {"a": "1"}, "state": "x"}
    sweep = {"overrides": ["a=1,2"], "hydra": [], "started": "2026", "jobs": [job, job]}
    write_files(root, {"sweep.json": json.dumps(sweep)})
    make_run(root / "0")


def file_of(name, content):
    return lambda root: write_files(root, {name: content})


# By name: how to write intact files, how to read them, and which are damaged.
READERS = {
    "page": (make_page, write_page, "**/*"),
    "ls": (make_runs, list_runs, "sweep/**/*"),
    "notebook": (make_notebook, read_notebook, "**/*"),
    "hydra files": (make_hydra, read_hydra, ".hydra/*"),
    "sweep": (make_sweep_jobs, read_jobs, "**/*.json"),
    "tables": (
        file_of("tables/t.csv", "class,x\r\ncat,0.5\r\n\"d\"\"og\",1\r\n"), read_all_tables, "**/*"
    ),
    "curves": (
        make_curves, lambda root: read_curves(RunContents(folder=root, status={})), "**/*.csv"
    ),
    "figure": (
        file_of("f.png", picture("PNG")), lambda root: embed(root / "f.png", 100, 9**9), "*"
    ),
    "explanations": (
        lambda root: write_explanations(root / "e.safetensors", {"distill": make_explanations()}),
        lambda root: read_explanations(root / "e.safetensors"), "*",
    ),
    "experts": (make_store, list_store, "**/*"),
    "trajectory": (make_trajectory, read_trajectory, "*"),
    "shards": (make_shards, lambda root: Shards.open(root).read(), "*"),
    "taxonomy as JSON": (
        file_of("t.json", json.dumps({"cat": "n02121620", "dog": "n02084071"})),
        lambda root: File(path=str(root / "t.json")).distances(SPLITS, "taxonomy"), "*",
    ),
    "taxonomy as CSV": (
        file_of("t.csv", "class,noun\ncat,n02121620\ndog,n02084071\n"),
        lambda root: File(path=str(root / "t.csv")).distances(SPLITS, "taxonomy"), "*",
    ),
    "taxonomy as a matrix": (
        file_of("t.csv", "class,cat,dog\ncat,0,2\ndog,2,0\n"),
        lambda root: File(path=str(root / "t.csv")).distances(SPLITS, "taxonomy"), "*",
    ),
    "class names": (
        file_of("c.txt", "cat\ndog\n"), lambda root: read_names(root / "c.txt"), "*"
    ),
    "folder of images": (make_images, read_images, "train/cat/*"),
    "constructed set": (make_constructed, read_constructed, "*"),
    "constructed safetensors": (
        file_of("c.safetensors", save({
            "images": torch.rand(3, 3, 4, 4), "labels": torch.zeros(3, dtype=torch.long),
        })),
        lambda root: read_constructed(root / "c.safetensors"), "*",
    ),
    "checkpoint": (
        lambda root: write_files(root, {"c.pt": torch_file(network().state_dict())}),
        lambda root: import_checkpoint(str(root / "c.pt"), network(), store(root)), "c.pt",
    ),
    "safetensors checkpoint": (
        lambda root: write_files(root, {"c.safetensors": save(network().state_dict())}),
        lambda root: import_checkpoint(str(root / "c.safetensors"), network(), store(root)),
        "c.safetensors",
    ),
    "pickled checkpoint": (
        lambda root: write_files(root, {
            "c.pt": torch_file(network().state_dict(), _use_new_zipfile_serialization=False)
        }),
        lambda root: import_checkpoint(str(root / "c.pt"), network(), store(root)), "c.pt",
    ),
    "expert buffer": (
        lambda root: write_files(root, {"b.pt": torch_file(
            [[[p.detach() for p in network().parameters()]] * 2]
        )}),
        lambda root: import_buffer(root / "b.pt", network(), store(root)), "b.pt",
    ),
}  # fmt: skip
# These readers name any damage, and have no errors.
WITHOUT_ERRORS = {"page", "ls", "experts", "tables", "curves"}


def damage(file, content, chance):
    if file.suffix in (".json", ".yaml") and chance.random() < 0.6:
        values = yaml.safe_load(content) if file.suffix == ".yaml" else json.loads(content)
        return mutate_values(json.dumps(values), chance)
    return mutate(content, chance)


def run_mutations(name, root, numbers):
    """Damage a file of a reader once per number; the outcomes and the longest time in seconds."""
    make, read, pattern = READERS[name]
    root = root / "files"
    make(root)
    files = {file: file.read_bytes() for file in sorted(root.glob(pattern)) if file.is_file()}
    intact = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    outcomes, longest = Counter(), 0.0
    for number in numbers:
        chance = generator(name, number)
        file = chance.choice(list(files))
        file.write_bytes(damage(file, files[file], chance))
        start = time.monotonic()
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                read(root)
        except ValueError as error:
            message = str(error)
            outcomes["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"mutation {number} of {file.name}: {error!r}") from error
        else:
            message = str(root)
            outcomes["success"] += 1
        # A refusal names the file, and says that no bug of the program was met.
        assert str(root) in message or file.name in message, (number, file, message)
        assert name not in WITHOUT_ERRORS or message == str(root), (number, file, message)
        seconds = time.monotonic() - start
        assert seconds < 10, (number, file)
        longest = max(longest, seconds)
        file.write_bytes(files[file])
        for other in set(root.rglob("*")) - set(intact):
            if other.is_file():
                other.unlink()
    read(root)
    return outcomes, longest


def check_mutations(name, root, count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    numbers = range(max(1, count // COSTS.get(name, 1)))
    outcomes, longest = run_mutations(name, root, numbers)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(  # noqa: T201
        f"{name}: {dict(outcomes)}, {time.monotonic() - start:.0f} s, longest {longest:.2f} s, "
        f"memory +{growth:.0f} MB"
    )
    assert growth < 1024


@pytest.mark.parametrize("name", READERS)
def test_a_hundred_mutations_of_each_reader(tmp_path, name):
    check_mutations(name, tmp_path, 100)


@pytest.mark.parametrize(("name", "number"), [("experts", 97), ("pickled checkpoint", 5371)])
def test_a_mutation_that_once_failed(tmp_path, name, number):
    run_mutations(name, tmp_path, numbers=[number])


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_mutations_of_each_reader(tmp_path, name):
    check_mutations(name, tmp_path, int(os.environ.get("CWX_MUTATIONS", "10000")))
