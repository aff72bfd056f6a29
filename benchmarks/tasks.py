"""What distillation is worth: a recipe's student with its teacher and without, at equal steps, at equal seconds, and
trained for so long that neither improves much.

    python -m benchmarks.tasks detection/fashion_scenes --seeds 3 --longer 3 9
    python -m benchmarks.tasks detection/fashion_scenes --seeds 3 --longer 9 --live
    python -m benchmarks.tasks detection/fashion_scenes data.limit=500 --results /tmp/try

In the longer comparisons a cache repeats its views of each image, while the student alone sees new ones in every epoch;
with ``--live`` the distilled student sees new ones too. The teacher is trained once, with seed 0. Each training is one
line of ``benchmarks/results/tasks.jsonl``, and what is there is not trained again: the command can be stopped and
started. Seconds are CPU seconds on one thread, so that other work on the machine does not count; `python -m
benchmarks.tables` makes the tables.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks._command import command, described
from benchmarks._jobs import spread
from benchmarks._over_seeds import grouped, marked
from benchmarks._page import measured_here
from benchmarks._results import RESULTS, Row, append, read, table
from distill.cli.arguments import positive
from distill.console import console
from distill.measure.evaluation import score, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_baseline, train_student, train_teachers
from distill.pipeline.step_store import NETWORK
from distill.recipe.loading import load
from distill.recipe.schema import Recipe

FILE = RESULTS / "tasks.jsonl"
IDENTITY = ("recipe", "overrides", "network", "cached", "epochs", "seed")
TIMED_EPOCHS = 3
"""With a teacher that is not cached: enough to know what an epoch costs."""


@dataclass(frozen=True)
class Training:
    """One network to train: the teacher, the student alone, or the distilled student."""

    network: str
    epochs: int
    cached: bool = True


@dataclass(frozen=True)
class Subject:
    """A recipe, how it is changed for all trainings, and where measurements are kept."""

    recipe: str
    overrides: tuple[str, ...]
    output: Path
    file: Path

    @property
    def epochs(self) -> int:
        """Of all stages of the student."""
        return sum(stage.epochs for stage in self._load().stages.values())

    def measured(self, training: Training, seed: int = 0) -> Row:
        """Metrics and seconds of a training, from the file of measurements or measured now."""
        named = {"recipe": self.recipe, "overrides": " ".join(self.overrides), **vars(training), "seed": seed}
        for row in read(self.file, IDENTITY):
            if all(row[key] == value for key, value in named.items()):
                return row
        row = {**named, **self._train(training, seed), "measured": measured_here()}
        append(self.file, row)
        print(f"{self.recipe} {training} seed {seed}: {row['test']}, {row['cpu_seconds']:.0f} CPU s", flush=True)
        return row

    def teacher(self) -> Row:
        """The teacher of all trainings, with seed 0."""
        recipe = self._load()
        return self.measured(Training("teacher", recipe.teacher.epochs if recipe.teacher else 0))

    def _train(self, training: Training, seed: int) -> Row:
        ends: list[float] = []
        recipe = self._recipe(training, seed)
        with Experiment.open(recipe, lambda *_: ends.append(time.process_time())) as experiment:
            if training.network == "teacher":
                ends.append(time.process_time())
                (done,) = train_teachers(experiment).values()
            else:
                teachers = train_teachers(experiment)
                ends.append(time.process_time())
                alone = training.network == "alone"
                done = train_baseline(experiment) if alone else [*train_student(experiment, teachers).values()][-1]
            model = to_accelerator(deployable(done.artifact.model))
            metrics = score(model, experiment.data.test_dataloader(), experiment.task)
            curve = [row.get(experiment.monitored) for row in done.curve]
            task = experiment.task
        if training.network != "teacher":
            shutil.rmtree(recipe.output)
        views = recipe.cache.views if recipe.cache else 0
        epoch, filling = seconds([after - before for before, after in pairwise(ends)], views)
        return {
            "monitor": task.monitor,
            "mode": task.mode,
            "unit": task.units.get(task.monitor, ""),
            "test": metrics,
            "curve": curve,
            "cpu_seconds": round(epoch * training.epochs, 1),
            "filling_seconds": round(filling, 1),
            "params": done.step.params,
            "macs": done.step.macs,
        }

    def _recipe(self, training: Training, seed: int) -> Recipe:
        """Without hooks and exports; the last stage is as long as the training's epochs ask."""
        if training.network == "teacher":
            return replace(self._load(f"output={self.output}"), compress={}, export={})
        weights = self.output / "teacher.safetensors"
        if not weights.exists():
            self._make_teacher(weights)
        name = f"{training.network}-{training.epochs}-{seed}"
        fixed = (f"teacher.weights={weights}", "teacher.epochs=0")
        recipe = self._load(f"output={self.output / name}", *fixed, seed=seed)
        *others, last = recipe.stages
        epochs = training.epochs - sum(recipe.stages[name].epochs for name in others)
        stages = {**recipe.stages, last: replace(recipe.stages[last], epochs=max(1, epochs))}
        cache = recipe.cache if training.cached and training.network != "alone" else None
        return replace(recipe, stages=stages, cache=cache, compress={}, export={})

    def _make_teacher(self, weights: Path) -> None:
        """Finds it finished where it has been measured in the same output folder."""
        recipe = replace(self._load(f"output={self.output}"), compress={}, export={})
        with Experiment.open(recipe) as experiment:
            train_teachers(experiment)
            shutil.copy(experiment.folder / "teacher" / NETWORK, weights)

    def _load(self, *more: str, seed: int = 0) -> Recipe:
        return load(self.recipe, [*self.overrides, *more, f"seed={seed}", "tracking.mode=disabled"])


def seconds(epochs: Sequence[float], views: int) -> tuple[float, float]:
    """What an epoch costs, and what it costs to fill the cache on top of that.

    Each of the first ``views`` epochs fills a view of the cache. A training that ends before all are filled reads
    nothing from the cache: then the teacher is part of what an epoch costs.
    """
    if len(epochs) <= views:
        return statistics.median(epochs), 0.0
    epoch = statistics.median(epochs[views:])
    return epoch, max(0.0, sum(epochs[:views]) - views * epoch)


@dataclass(frozen=True)
class Comparison:
    """The student alone and distilled, on equal terms."""

    terms: str
    alone: Training
    distilled: Training


def comparisons(epochs: int, longer: Iterable[Training], first: Callable[[Training], Row]) -> list[Comparison]:
    """The first seed's seconds say how long the student alone trains in the seconds of the distilled one.

    Args:
        epochs: of the recipe's student.
        longer: the distilled student of each longer comparison; where the recipe itself does no more than fill its
            cache, one that reads it says what an epoch costs with a teacher that is cached.
        first: a training with the first seed.
    """
    alone, distilled = Training("alone", epochs), Training("distilled", epochs)
    cost = first(alone)["cpu_seconds"] / epochs
    row, live = first(distilled), first(Training("distilled", min(epochs, TIMED_EPOCHS), cached=False))
    filled = row["cpu_seconds"] + row["filling_seconds"]
    cached = [row, *(first(one) for one in longer if one.cached)]
    seconds = {
        "equal seconds, teacher cached": min(one["cpu_seconds"] / one["epochs"] for one in cached) * epochs,
        "equal seconds, filling the cache counted": filled,
        "equal seconds, teacher live": live["cpu_seconds"] / live["epochs"] * epochs,
    }
    long = [
        Comparison(
            f"{one.epochs // epochs} times the steps{'' if one.cached else ', teacher live'}",
            Training("alone", one.epochs),
            one,
        )
        for one in longer
    ]
    equal = [
        Comparison(terms, Training("alone", max(1, round(budget / cost))), distilled)
        for terms, budget in seconds.items()
    ]
    return [Comparison("equal steps", alone, distilled), *long, *equal]


def shown(rows: Sequence[Row]) -> str:
    """The monitor on the test split, over seeds, as its unit asks."""
    return spread([value(row) for row in rows])


def value(row: Row) -> float:
    """The monitor on the test split; a fraction in percent."""
    return row["test"][row["monitor"]] * (100 if row["unit"] == "%" else 1)


def gain(alone: Sequence[Row], distilled: Sequence[Row]) -> str:
    """How much better the distilled student is, seed by seed; marked where that is more than the spread."""
    sign = 1 if alone[0]["mode"] == "max" else -1
    return marked([sign * (value(after) - value(before)) for before, after in zip(alone, distilled, strict=True)])


def last_third(rows: Sequence[Row]) -> str:
    """How much the monitor on the validation split gains in the last third of the schedule."""
    sign = 1 if rows[0]["mode"] == "max" else -1
    scale = 100 if rows[0]["unit"] == "%" else 1
    curves = [[point for point in row["curve"] if point is not None] for row in rows]
    if not all(len(curve) > 2 for curve in curves):
        return "-"
    return spread([sign * scale * (curve[-1] - curve[len(curve) * 2 // 3 - 1]) for curve in curves])


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table of each recipe, and of each set of overrides, by its name on pages."""
    return {
        f"tasks {recipe} {overrides}".rstrip(): recipe_table(some)
        for (recipe, overrides), some in grouped(rows, "recipe", "overrides").items()
        if timed(some)
    }


def timed(rows: Sequence[Row]) -> bool:
    """Whether everything is measured that comparisons follow from."""
    found = {(row["network"], row["cached"]) for row in rows if row["seed"] == 0}
    return {("teacher", True), ("alone", True), ("distilled", True), ("distilled", False)} <= found


def recipe_table(rows: Sequence[Row]) -> str:
    """What each comparison of one recipe found."""
    known: dict[Training, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        known.setdefault(Training(row["network"], row["epochs"], row["cached"]), []).append(row)
    teacher = next(row for row in rows if row["network"] == "teacher")
    distilled = sorted(
        (one for one in known if one.network == "distilled"), key=lambda one: (one.epochs, not one.cached)
    )
    epochs = min(one.epochs for one in distilled if one.cached)
    longer = [one for one in distilled if one.epochs > epochs]
    name = f"{teacher['monitor']}{', ' + teacher['unit'] if teacher['unit'] else ''}"
    lines = []
    for one in comparisons(epochs, longer, lambda training: known[training][0]):
        pairs = [*zip(known.get(one.alone, []), known.get(one.distilled, []), strict=False)]
        if not pairs:
            continue
        alone, distilled = zip(*pairs, strict=True)
        seconds = [f"{statistics.median(row['cpu_seconds'] for row in some):.0f}" for some in (alone, distilled)]
        counts = [str(len(pairs)), str(one.alone.epochs), str(one.distilled.epochs), *seconds]
        last = [last_third(alone), last_third(distilled)]
        lines.append([one.terms, *counts, shown(alone), shown(distilled), gain(alone, distilled), *last])
    columns = ["seeds", "epochs alone", "distilled", "CPU s alone", "distilled", f"alone, {name}", f"distilled, {name}"]
    costs = f"{teacher['params']:,} parameters, {teacher['macs']:,} MACs"
    student = next(row for row in rows if row["network"] != "teacher")
    about = f"Teacher: {name} {shown([teacher])}, {costs}; student: {student['params']:,} and {student['macs']:,}."
    return f"{about}\n\n{table(['comparison', *columns, 'gain', 'last third, alone', 'distilled'], lines)}"


@command
def main() -> None:
    """Measure what is missing, comparison by comparison, each with all seeds."""
    parser = described(__doc__)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what differs from the recipe")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument(
        "--longer", type=positive, nargs="*", default=[3], help="times the recipe's epochs, of each long comparison"
    )
    parser.add_argument(
        "--live", action="store_true", help="call the teacher of longer comparisons on new views in every epoch"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/tasks"), help="for the teacher and work under way")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_intermixed_args()
    console.quiet = True
    torch.set_num_threads(1)
    output = options.output / "-".join([options.recipe.replace("/", "-"), *options.overrides])
    subject = Subject(options.recipe, tuple(options.overrides), output, options.results)
    subject.teacher()
    epochs = subject.epochs
    longer = [Training("distilled", times * epochs, not options.live) for times in options.longer if times > 1]
    for one in comparisons(epochs, longer, subject.measured):
        for training in (one.alone, one.distilled):
            for seed in range(options.seeds):
                subject.measured(training, seed)


if __name__ == "__main__":
    main()
