"""Every distillation method on one small budget: accuracy, CPU seconds an epoch, peak memory.

    python -m benchmarks.methods [--methods kd at ...] [--seeds 3] [--jobs 2]

Runs each recipe of ``recipes/fashion_mnist/methods`` with several seeds, all from the same two teachers, which are
trained first. Each method has a process of its own, so that its memory can be told. Finished methods are kept in
``OUTPUT/methods/*.json``: the command can be stopped and started again. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks._jobs import spread
from benchmarks._memory import peak_mb
from distill.console import quiet_libraries
from distill.measure.evaluation import score, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_student, train_teachers
from distill.pipeline.step_store import NETWORK
from distill.recipe.files import names
from distill.recipe.loading import load

FOLDER = "fashion_mnist/methods"
WITH_BOTH = f"{FOLDER}/ensemble"
"""The recipe that has both teachers."""
SHALLOW, DEEP = "shallow", "deep"
ACCURACIES = ("test, %", "validation, last, %", "validation, best, %")
COLUMNS = ("method", *ACCURACIES, "CPU s/epoch", "peak MB", "parameters", "MACs")


@dataclass
class Measured:
    """One method over all seeds."""

    params: int = 0
    macs: int = 0
    test: list[float] = field(default_factory=list)
    """Accuracy after the last epoch, by seed."""
    val: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    """Of all epochs, on the validation split."""
    epoch_seconds: float = 0.0
    """CPU time, on one thread, of the median epoch of the last stage: other work on the machine does not count."""
    peak_mb: float = 0.0


def prepared(output: Path) -> dict[str, Path]:
    """Train the teachers, or find them trained; their weights by name."""
    with Experiment.open(load(WITH_BOTH, ["seed=0", f"output={output}", "tracking.mode=disabled"])) as experiment:
        train_teachers(experiment)
        return {name: experiment.folder / "teachers" / name / NETWORK for name in (SHALLOW, DEEP)}


def overrides(name: str, teachers: dict[str, Path]) -> list[str]:
    """Teachers as they were trained, in place of training them with every seed."""
    recipe = load(name)
    fixed = {f"teachers.{key}": teachers[key] for key in recipe.teachers}
    if recipe.teacher:
        fixed["teacher"] = teachers[SHALLOW]
    return [line for key, file in fixed.items() for line in (f"{key}.weights={file}", f"{key}.epochs=0")]


def measure(method: str, seeds: int, output: Path, teachers: dict[str, Path]) -> Measured:
    """Train and judge one method."""
    name, measured, epochs = f"{FOLDER}/{method}", Measured(), []
    for seed in range(seeds):
        ends: list[tuple[str, float]] = []
        settings = [f"seed={seed}", f"output={output}", "tracking.mode=disabled", *overrides(name, teachers)]
        recipe = load(name, settings)
        with Experiment.open(
            recipe, lambda title, *_, ends=ends: ends.append((title, time.process_time()))
        ) as experiment:
            done = list(train_student(experiment, train_teachers(experiment)).values())[-1]
            model = to_accelerator(deployable(done.artifact.model))
            accuracy = score(model, experiment.data.test_dataloader(), experiment.task)["accuracy"]
        curve = [row["val/accuracy"] for row in done.curve]
        last = [moment for title, moment in ends if title == ends[-1][0]]
        epochs += [after - before for before, after in pairwise(last)]
        measured.test.append(100 * accuracy)
        measured.val.append(100 * curve[-1])
        measured.best.append(100 * max(curve))
        measured.params, measured.macs = done.step.params, done.step.macs
    measured.epoch_seconds = statistics.median(epochs or [float("nan")])
    measured.peak_mb = peak_mb()
    return measured


def row(method: str, measured: Measured) -> str:
    """A line of the table."""

    accuracy = [spread(measured.test), spread(measured.val), spread(measured.best)]
    cost = [f"{measured.epoch_seconds:.1f}", f"{measured.peak_mb:,.0f}", f"{measured.params:,}", f"{measured.macs:,}"]
    return f"| {' | '.join([method, *accuracy, *cost])} |"


def main() -> None:
    """Run what is not yet measured, and print."""
    methods = [name.rpartition("/")[2] for name in names() if name.startswith(f"{FOLDER}/")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="methods at a time, each on one thread")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--alone", nargs=2, type=Path, help=argparse.SUPPRESS)  # one method here, from these teachers
    options = parser.parse_args()
    quiet_libraries()
    kept = {method: options.output / "methods" / f"{method}-{options.seeds}.json" for method in options.methods}
    if options.alone:
        (method,) = options.methods
        teachers = dict(zip((SHALLOW, DEEP), options.alone, strict=True))
        kept[method].parent.mkdir(exist_ok=True)
        kept[method].write_text(json.dumps(asdict(measure(method, options.seeds, options.output, teachers))))
        return
    files = [str(file) for file in prepared(options.output).values()]
    settings = [f"--seeds={options.seeds}", f"--output={options.output}", "--alone", *files]
    command = [sys.executable, "-m", "benchmarks.methods", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(method: str) -> None:
        if not kept[method].exists() and subprocess.run([*command, "--methods", method], env=environment).returncode:
            print(f"{method} failed: see above")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, kept))
    results = {method: Measured(**json.loads(file.read_text())) for method, file in kept.items() if file.exists()}
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for method, measured in sorted(results.items(), key=lambda item: -statistics.mean(item[1].test)):
        print(row(method, measured))


if __name__ == "__main__":
    main()
