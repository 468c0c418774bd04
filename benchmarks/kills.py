"""Kill small runs of every method at random times, continue them, and compare the results.

    nice python benchmarks/kills.py --kills 40 --seed 0

Each case runs once without interruption. A second run of it is killed with SIGKILL at a uniformly
drawn time, continued with ``resume=``, killed again, and so on; the last start is left alone. Every
result of both, also of their stores, must be equal byte for byte; times and logs are not compared.
A start is a fork of a process that has imported everything, for the imports take most of its time.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

SMALL = [
    "data.per_class=20", "network.width=4", "recipe.epochs=5", "experts.seeds=[0]",
    "experts.held_out=[]", "experts.evaluation_seeds=[]", "logger=[csv]",
]  # fmt: skip
DISTILL = [
    "method=[distill]", "method.distill.start_max=1", "method.distill.inner.steps=3",
    "method.distill.checkpoint_every=2",
]  # fmt: skip
FEW = ["evaluation=[gallery]"]
CANVAS = "canvas@method.{0}.canvas=random"
BATCH_NORM = "network.norm={_target_:torch.nn.BatchNorm2d,_partial_:true}"
CASES = {
    "expert": ["method=[]", "evaluation=[accuracy]", "recipe.epochs=15"],
    "batch norm": ["method=[]", "evaluation=[accuracy]", "recipe.epochs=15", BATCH_NORM],
    "within epochs": ["method=[]", "evaluation=[accuracy]", "recipe.batch_size=10", BATCH_NORM,
                      "experts.checkpoint_minutes=0.001"],
    "distill": [*DISTILL, "method.distill.iterations=40", *FEW],
    "activation": ["method=[activation]", "method.activation.iterations=60", *FEW],
    "iscp": ["method=[iscp]", "method.iscp.canvases=2", "method.iscp.passes=4",
             CANVAS.format("iscp"), *FEW],
    "learned canvas": ["method=[iscp_learned_canvas]", *FEW],
    "universal": ["method=[universal]", "method.universal.passes=4",
                  "method.universal.chunk=null", *FEW],
    "gradcam": ["method=[gradcam]", "method.gradcam.canvases=2", CANVAS.format("gradcam"), *FEW],
    "adversarial": ["recipe=adversarial", "recipe.attack.steps=2", "method=[]",
                    "evaluation=[accuracy]"],
    "consistency": ["recipe=consistency", "method=[]", "evaluation=[accuracy]"],
    "fine-tuning": ["fine_tuning=consistency", "fine_tuning.recipe.epochs=5",
                    "fine_tuning.recipe.attack.steps=2", "method=[]", "evaluation=[accuracy]"],
    "construction": ["dataset_construction=robust", "dataset_construction.algorithm.steps=20",
                     "dataset_construction.batch_size=100", "method=[]", "evaluation=[accuracy]"],
    "ensemble attack": ["adversary=ensemble", "adversary.targets=2", "adversary.images=60",
                        "adversary.batch_size=20", "recipe.epochs=30", "network.width=16",
                        "method=[]", "evaluation=[adversarial_set]"],
    "purification": [*DISTILL, "method.distill.iterations=10", "corruption=badnets",
                     "corruption.target=3", "purification=revealed",
                     "evaluation=[attack_success]"],
}  # fmt: skip
# Files with times, process ids or absolute paths.
_VARYING = {"status.json", "inputs.json", "cwx.log", "uses.json", "traceback.txt", "lock", ".lock"}
_VARYING_FOLDERS = {"logs", ".hydra"}


def start(folder: Path, overrides: list[str]) -> int:
    """Fork a process that runs the command line in `folder`; returns its id."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    os.chdir(folder)
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [str(Path(__file__).parents[1] / "run.py"), *overrides]
    code = 1
    try:
        from cwx.cli.app import main

        main()
        code = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(process: int, seconds: float | None = None) -> int | None:
    """The exit code; negative after a signal, ``None`` if the process still runs."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def command(folder: Path, overrides: list[str]) -> list[str]:
    """The command that starts the run in `folder`, or continues it."""
    started = (folder / "run/status.json").exists() and (folder / "run/.hydra").is_dir()
    return ["resume=run"] if started else [*SMALL, *overrides, "hydra.run.dir=run"]


def results(folder: Path) -> dict[str, bytes]:
    """The content of every result file below `folder`, by name."""
    files = [*folder.glob("run/**/*"), *folder.glob("store/**/*")]
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in files
        if file.is_file()
        and file.name not in _VARYING
        and file.suffix not in (".html", ".part")
        and not _VARYING_FOLDERS & {*file.relative_to(folder).parts}
    }


def run_case(root: Path, overrides: list[str], kills: int, draw: random.Random) -> str:
    """Run a case without and with kills; returns what was seen."""
    whole, cut = root / "whole", root / "cut"
    for folder in (whole, cut):
        folder.mkdir(parents=True)
    begin = time.monotonic()
    code = wait(start(whole, command(whole, overrides)))
    duration = time.monotonic() - begin
    if code != 0:
        return f"FAILED uninterrupted ({code}): {(whole / 'output.txt').read_text()[-500:]}"
    times = []
    while len(times) < kills:
        moment = draw.uniform(0, duration)
        process = start(cut, command(cut, overrides))
        code = wait(process, moment)
        if code is None:
            os.killpg(process, signal.SIGKILL)
            code = wait(process)
            times.append(moment)
        elif code == 0:
            # It finished before its kill: start anew, to kill elsewhere.
            shutil.rmtree(cut)
            cut.mkdir()
        else:
            return f"FAILED after {times} ({code}): {(cut / 'output.txt').read_text()[-500:]}"
    code = wait(start(cut, command(cut, overrides)))
    if code != 0:
        return f"FAILED after {times} ({code}): {(cut / 'output.txt').read_text()[-500:]}"
    expected, actual = results(whole), results(cut)
    names = sorted(n for n in {*expected, *actual} if expected.get(n) != actual.get(n))
    moments = ", ".join(f"{moment:.2f}" for moment in times)
    verdict = f"DIFFERENT: {names}" if names else f"{len(expected)} files equal"
    return f"{verdict}; {duration:.1f} s, killed after {moments} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("cases", nargs="*", default=[*CASES])
    arguments = parser.parse_args()
    # Before the forks, everything that a start imports.
    import cwx.cli.run
    import cwx.study.study  # noqa: F401

    draw, root, killed = random.Random(arguments.seed), Path(tempfile.mkdtemp()), 0
    failed = 0
    for index, name in enumerate(arguments.cases):
        kills = arguments.kills // len(arguments.cases) + (
            index < arguments.kills % len(arguments.cases)
        )
        seen = run_case(root / name, CASES[name], kills, draw)
        failed += "equal" not in seen
        killed += kills if "equal" in seen else 0
        sys.stdout.write(f"{name}: {seen}\n")
        sys.stdout.flush()
    sys.stdout.write(
        f"{killed} kills with equal results, {failed} cases failed; folders in {root}\n"
    )
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
