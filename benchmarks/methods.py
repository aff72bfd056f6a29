"""Every distillation method on one small budget: accuracy, CPU seconds an epoch, peak memory.

    python -m benchmarks.methods [--methods kd at ...] [--seeds 3] [--jobs 2]
    timeout 540 python -m benchmarks.methods --epochs 30 --teacher-epochs 60 data.limit=null cache=null \
        trainer.precision=bf16-mixed                on a GPU, to be started again until the table is complete

Runs each recipe of ``recipes/fashion_mnist/methods`` with several seeds, all from the same two teachers, which are
trained first. Each method has a process of its own, whose peak memory is measured. Each method and seed on each budget
is a line of ``benchmarks/results/methods.jsonl``, and what is there is not measured again; a training goes on from its
last epoch. `python -m benchmarks.tables` makes the table of docs/benchmarks/methods.md.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks import _results
from benchmarks._command import command, described
from benchmarks._jobs import at_once, say
from benchmarks._memory import peak_mb
from benchmarks._over_seeds import gain, grouped, mean, shown
from benchmarks._results import RESULTS, Row, kept, read
from distill.cli.arguments import positive
from distill.measure.evaluation import score, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_student, train_teachers
from distill.pipeline.step_store import NETWORK
from distill.recipe.files import names
from distill.recipe.loading import load

FILE = RESULTS / "methods.jsonl"
IDENTITY = ("budget", "method", "seed")
FOLDER = "fashion_mnist/methods"
WITH_ONE, WITH_BOTH = f"{FOLDER}/kd", f"{FOLDER}/ensemble"
"""Recipes that have the shallow teacher, and both."""
SHALLOW, DEEP = "shallow", "deep"
ACCURACIES = {"test": "test, %", "val": "validation, last, %", "best": "validation, best, %"}
ALONE = "alone"
"""The student without a teacher: a method that others are compared with."""
SMALLER = frozenset({"dkd", "mlld", "lskd", "catkd", "dist", "ft", "dml", "fsp", "semckd", "fitnet", "reviewkd"})
"""Methods whose recipes have smaller weights of losses than their authors' CIFAR-100 recipes."""
OF_IMAGENET = frozenset({"srd", "vkd"})
"""Methods whose authors publish weights for ImageNet alone."""
COLUMNS = ("method", "weights", "gain", *ACCURACIES.values(), "CPU s/epoch", "peak MB", "parameters", "MACs")


@dataclass(frozen=True)
class Budget:
    """What differs from the recipes, for all methods alike."""

    epochs: int | None = None
    """Of all stages of a student together, divided as in its recipe."""
    teacher_epochs: int | None = None
    settings: tuple[str, ...] = ()
    """KEY=VALUE, as for train.py."""

    def lines(self, name: str) -> list[str]:
        """Overrides of a recipe."""
        recipe = load(name)
        lines = list(self.settings)
        if self.epochs:
            total = sum(stage.epochs for stage in recipe.stages.values())
            for key, stage in recipe.stages.items():
                lines.append(f"stages.{key}.epochs={max(1, round(self.epochs * stage.epochs / total))}")
        if self.teacher_epochs:
            keys = [f"teachers.{key}" for key in recipe.teachers] + (["teacher"] if recipe.teacher else [])
            lines += [f"{key}.epochs={self.teacher_epochs}" for key in keys]
        return lines

    @property
    def arguments(self) -> list[str]:
        """As they are given to the command."""
        numbers = {"--epochs": self.epochs, "--teacher-epochs": self.teacher_epochs}
        return [*(f"{name}={value}" for name, value in numbers.items() if value), *self.settings]


def kept_in(output: Path) -> list[str]:
    """Where a run keeps its steps."""
    return [f"output={output}", "tracking.mode=disabled"]


def now() -> float:
    """Seconds: of the CPU, or those that pass where a GPU computes."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def prepared(output: Path, budget: Budget, methods: Sequence[str]) -> list[Path]:
    """Train the teachers, or find them trained; the weights of the shallow one, and of the deep one if one asks."""
    both = any(load(f"{FOLDER}/{method}").teachers for method in methods)
    name = WITH_BOTH if both else WITH_ONE
    with Experiment.open(load(name, [*budget.lines(name), "seed=0", *kept_in(output)])) as experiment:
        train_teachers(experiment)
        folders = (f"teachers/{SHALLOW}", f"teachers/{DEEP}") if both else ("teacher",)
        return [experiment.folder / folder / NETWORK for folder in folders]


def overrides(name: str, teachers: dict[str, Path]) -> list[str]:
    """Teachers as they were trained, in place of training them with every seed."""
    recipe = load(name)
    fixed = {f"teachers.{key}": teachers[key] for key in recipe.teachers}
    if recipe.teacher:
        fixed["teacher"] = teachers[SHALLOW]
    return [line for key, file in fixed.items() for line in (f"{key}.weights={file}", f"{key}.epochs=0")]


def measure(method: str, seed: int, output: Path, teachers: dict[str, Path], budget: Budget) -> Row:
    """Train and judge one method: accuracies in percent on the test split (``test``) and on the validation split, after
    the last epoch (``val``) and the best one (``best``); seconds of each epoch of the last stage, see `now`."""
    name, ends = f"{FOLDER}/{method}", list[tuple[str, float]]()
    settings = [*budget.lines(name), f"seed={seed}", *kept_in(output), *overrides(name, teachers)]
    with Experiment.open(load(name, settings), lambda title, *_: ends.append((title, now()))) as experiment:
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
    """The table of each budget, by its name on pages: the best method first; and what further settings change."""
    budgets = dict.fromkeys(row["budget"] for row in rows)
    found = {f"methods {one}".rstrip(): _table([row for row in rows if row["budget"] == one]) for one in budgets}
    for budget in filter(None, budgets):
        if further := [row for row in rows if row["budget"].startswith(f"{budget} ")]:
            found[f"methods {budget}: further settings"] = _changes(budget, rows, further)
    return found


def _changes(budget: str, rows: Sequence[Row], further: Sequence[Row]) -> str:
    """Each setting against the same method and seed without it."""
    without = grouped((row for row in rows if row["budget"] == budget), "method")
    lines = [
        [f"`{longer.removeprefix(budget).strip()}`", method, str(len(seeds)), gain(seeds, without[method,], "test")]
        + [shown(seeds, name) for name in ACCURACIES]
        for (longer, method), seeds in grouped(further, "budget", "method").items()
    ]
    text = _results.table(["setting", "method", "seeds", "gain", *ACCURACIES.values()], lines)
    return f"{text}\n\n{_results.measured(further)}"


def _table(rows: Sequence[Row]) -> str:
    methods = grouped(rows, "method")
    alone = methods.get((ALONE,), [])
    lines = []
    for (method,), seeds in sorted(methods.items(), key=lambda item: -mean(item[1], "test")):
        seconds = statistics.median([one for row in seeds for one in row["epoch_seconds"]] or [float("nan")])
        cost = [f"{seconds:.1f}", f"{max(row['peak_mb'] for row in seeds):,.0f}"]
        size = [f"{seeds[0][name]:,}" for name in ("params", "macs")]
        gained = gain(seeds, alone, "test") if alone and method != ALONE else ""
        accuracies = (shown(seeds, name) for name in ACCURACIES)
        lines.append([method, _weights(method), gained, *accuracies, *cost, *size])
    return f"{_results.table(COLUMNS, lines)}\n\n{_results.measured(rows)}"


def _weights(method: str) -> str:
    """Whose weights of losses the recipe has."""
    if method == ALONE:
        return ""
    return "smaller" if method in SMALLER else "paper, ImageNet" if method in OF_IMAGENET else "paper"


@command
def main() -> None:
    """Run what is not yet measured."""
    methods = [name.rpartition("/")[2] for name in names() if name.startswith(f"{FOLDER}/")]
    parser = described(__doc__)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="what differs from the recipes")
    parser.add_argument("--epochs", type=positive, help="of all stages of a student; by default its recipe's")
    parser.add_argument("--teacher-epochs", type=positive)
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods, metavar="METHOD")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--jobs", type=positive, default=2, help="methods at a time, each on one thread")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--alone", nargs="+", type=Path, help=argparse.SUPPRESS)  # one method here, from these teachers
    options = parser.parse_intermixed_args()
    budget = Budget(options.epochs, options.teacher_epochs, tuple(options.settings))
    name = " ".join(budget.arguments)
    if options.alone:
        (method,) = options.methods
        teachers = dict(zip((SHALLOW, DEEP), options.alone))
        for seed in range(options.seeds):
            run = partial(measure, method, seed, options.output, teachers, budget)
            kept(options.results, {"budget": name, "method": method, "seed": seed}, run)
        return
    wanted = {method: {(name, method, seed) for seed in range(options.seeds)} for method in options.methods}
    if left := [method for method, keys in wanted.items() if keys - _known(options.results)]:
        files = [str(file) for file in prepared(options.output, budget, left)]
        shared = [f"--seeds={options.seeds}", f"--output={options.output}", f"--results={options.results}"]
        work = {method: [*budget.arguments, *shared, "--methods", method, "--alone", *files] for method in left}
        at_once(work, options.output / "methods", options.jobs, "benchmarks.methods")
    failed = [method for method, keys in wanted.items() if keys - _known(options.results)]
    say(f"failed, see {options.output / 'methods'}/*.log: {failed}" if failed else "every method is measured")


def _known(file: Path) -> set[tuple[Any, ...]]:
    return {tuple(row.get(field) for field in IDENTITY) for row in read(file, IDENTITY)}


if __name__ == "__main__":
    main()
