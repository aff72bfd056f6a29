"""Every distillation method on one small budget: accuracy, CPU seconds an epoch, peak memory.

    python -m benchmarks.methods [--methods kd at ...] [--seeds 3] [--jobs 2]

Runs each recipe of ``recipes/fashion_mnist/methods`` with several seeds, all from the same two teachers, which are
trained first. Each method has a process of its own, whose peak memory is measured. Each method and seed is a line of
``benchmarks/results/methods.jsonl``, and what is there is not measured again; `python -m benchmarks.tables` makes the
table of docs/benchmarks/methods.md.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from benchmarks import _results
from benchmarks._jobs import at_once, say
from benchmarks._memory import peak_mb
from benchmarks._over_seeds import grouped, mean, shown
from benchmarks._results import RESULTS, Row, kept, read
from distill.console import quiet_libraries
from distill.measure.evaluation import score, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_student, train_teachers
from distill.pipeline.step_store import NETWORK
from distill.recipe.files import names
from distill.recipe.loading import load

FILE = RESULTS / "methods.jsonl"
IDENTITY = ("method", "seed")
FOLDER = "fashion_mnist/methods"
WITH_BOTH = f"{FOLDER}/ensemble"
"""The recipe that has both teachers."""
SHALLOW, DEEP = "shallow", "deep"
ACCURACIES = {"test": "test, %", "val": "validation, last, %", "best": "validation, best, %"}
COLUMNS = ("method", *ACCURACIES.values(), "CPU s/epoch", "peak MB", "parameters", "MACs")


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


def measure(method: str, seed: int, output: Path, teachers: dict[str, Path]) -> Row:
    """Train and judge one method: accuracies in percent on the test split (``test``) and on the validation split, after
    the last epoch (``val``) and the best one (``best``); CPU seconds of each epoch of the last stage, on one thread."""
    name, ends = f"{FOLDER}/{method}", list[tuple[str, float]]()
    settings = [f"seed={seed}", f"output={output}", "tracking.mode=disabled", *overrides(name, teachers)]
    with Experiment.open(
        load(name, settings), lambda title, *_: ends.append((title, time.process_time()))
    ) as experiment:
        done = list(train_student(experiment, train_teachers(experiment)).values())[-1]
        model = to_accelerator(deployable(done.artifact.model))
        accuracy = score(model, experiment.data.test_dataloader(), experiment.task)["accuracy"]
    curve = [row["val/accuracy"] for row in done.curve]
    last = [moment for title, moment in ends if title == ends[-1][0]] if ends else []
    return {
        "test": 100 * accuracy,
        "val": 100 * curve[-1],
        "best": 100 * max(curve),
        "epoch_seconds": [after - before for before, after in pairwise(last)],
        "peak_mb": peak_mb(),
        "params": done.step.params,
        "macs": done.step.macs,
    }


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table by its name on pages, if there are rows for it: the best method first."""
    methods = grouped(rows, "method")
    lines = []
    for (method,), seeds in sorted(methods.items(), key=lambda item: -mean(item[1], "test")):
        seconds = statistics.median([one for row in seeds for one in row["epoch_seconds"]] or [float("nan")])
        cost = [f"{seconds:.1f}", f"{max(row['peak_mb'] for row in seeds):,.0f}"]
        size = [f"{seeds[0][name]:,}" for name in ("params", "macs")]
        lines.append([method, *(shown(seeds, name) for name in ACCURACIES), *cost, *size])
    return {"methods": f"{_results.table(COLUMNS, lines)}\n\n{_results.measured(rows)}"} if lines else {}


def main() -> None:
    """Run what is not yet measured."""
    methods = [name.rpartition("/")[2] for name in names() if name.startswith(f"{FOLDER}/")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="methods at a time, each on one thread")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--alone", nargs=2, type=Path, help=argparse.SUPPRESS)  # one method here, from these teachers
    options = parser.parse_args()
    quiet_libraries()
    if options.alone:
        (method,) = options.methods
        teachers = dict(zip((SHALLOW, DEEP), options.alone, strict=True))
        for seed in range(options.seeds):
            named = {"method": method, "seed": seed}
            kept(options.results, named, partial(measure, **named, output=options.output, teachers=teachers))
        return
    known = {(row["method"], row.get("seed")) for row in read(options.results, IDENTITY)}
    wanted = {method: [(method, seed) for seed in range(options.seeds)] for method in options.methods}
    if left := [method for method, pairs in wanted.items() if not known.issuperset(pairs)]:
        files = [str(file) for file in prepared(options.output).values()]
        shared = [f"--seeds={options.seeds}", f"--output={options.output}", f"--results={options.results}"]
        work = {method: [*shared, "--methods", method, "--alone", *files] for method in left}
        at_once(work, options.output / "methods", options.jobs, "benchmarks.methods")
    known = {(row["method"], row.get("seed")) for row in read(options.results, IDENTITY)}
    failed = [method for method, pairs in wanted.items() if not known.issuperset(pairs)]
    say(f"failed, see {options.output / 'methods'}/*.log: {failed}" if failed else "every method is measured")


if __name__ == "__main__":
    main()
