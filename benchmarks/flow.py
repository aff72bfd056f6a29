"""Multi-layer teacher and student for optical flow: how many epochs and seconds it takes to be as good as from scratch.

    python -m benchmarks.flow --seeds 3

The light student of ``flow/flying_cutouts`` trains alone, with its teacher's flow at four levels (``whole``), and first
block by block (``blocks``, ``flow/multi_layer``), each with the recipe's epochs and with half of them, a learning-rate
schedule to each. The end-point errors to reach are those alone, of the same seed, on the validation split. One teacher,
of seed 0, teaches all. Every training is a line of ``benchmarks/results/flow.jsonl`` and is not done again; every curve
is in ``--picture``, which needs matplotlib. Seconds are CPU seconds of one thread, with validation after every epoch
and the filling of the cache, without the teacher's training.
"""

import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks._command import command, described
from benchmarks._jobs import spread
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
from distill.report.style import COLOURS, INK

FILE = RESULTS / "flow.jsonl"
IDENTITY = ("overrides", "way", "epochs", "seed")
ALONE = "alone"
WAYS = {ALONE: "flow/flying_cutouts", "whole": "flow/flying_cutouts", "blocks": "flow/multi_layer"}
LINES = {ALONE: COLOURS["baseline"], "whole": COLOURS["student"], "blocks": COLOURS["compress"]}


@dataclass(frozen=True)
class Bench:
    """Where work and results go."""

    output: Path
    file: Path
    overrides: tuple[str, ...]

    def measured(self, way: str, epochs: int, seed: int) -> Row:
        """A training's curve and test error, from the file or measured now."""
        named = {"overrides": " ".join(self.overrides), "way": way, "epochs": epochs, "seed": seed}
        for row in read(self.file, IDENTITY):
            if all(row[key] == value for key, value in named.items()):
                return row
        row = {**named, **self._train(way, epochs, seed), "measured": measured_here()}
        append(self.file, row)
        print(f"{way}, {epochs} epochs, seed {seed}: {row['curve'][-1]:.3f} px, {row['seconds'][-1]:.0f} s", flush=True)
        return row

    def whole_epochs(self) -> int:
        """Of the recipe's student."""
        return sum(stage.epochs for stage in self._load(WAYS[ALONE], 0).stages.values())

    def _train(self, way: str, epochs: int, seed: int) -> dict[str, object]:
        curve: list[float] = []
        seconds: list[float] = []
        start = [0.0]

        def note(_step: str, _epoch: int, values: dict[str, float]) -> None:
            curve.append(values["val/epe"])
            seconds.append(round(time.process_time() - start[0], 1))

        recipe = self._recipe(way, epochs, seed)
        with Experiment.open(recipe, note) as experiment:
            teachers = train_teachers(experiment)
            start[0] = time.process_time()
            done = train_baseline(experiment) if way == ALONE else [*train_student(experiment, teachers).values()][-1]
            model = to_accelerator(deployable(done.artifact.model))
            test = score(model, experiment.data.test_dataloader(), experiment.task)
        shutil.rmtree(recipe.output)
        return {"curve": curve, "seconds": seconds, "test": test}

    def _recipe(self, way: str, epochs: int, seed: int) -> Recipe:
        """The stages' shares of the epochs are the recipe's."""
        fixed = (f"teacher.weights={self._teacher()}", "teacher.epochs=0", f"output={self.output / f'{way}-{seed}'}")
        recipe = self._load(WAYS[way], seed, *fixed)
        total, left, stages = sum(stage.epochs for stage in recipe.stages.values()), epochs, {}
        for name, stage in recipe.stages.items():
            last = name == list(recipe.stages)[-1]
            stages[name] = replace(stage, epochs=left if last else max(1, round(epochs * stage.epochs / total)))
            left -= stages[name].epochs
        return replace(recipe, stages=stages, compress={}, export={}, cache=None if way == ALONE else recipe.cache)

    def _teacher(self) -> Path:
        weights = self.output / "teacher.safetensors"
        if not weights.exists():
            recipe = replace(self._load(WAYS[ALONE], 0, f"output={self.output}"), compress={}, export={})
            with Experiment.open(recipe) as experiment:
                train_teachers(experiment)
                shutil.copy(experiment.folder / "teacher" / NETWORK, weights)
        return weights

    def _load(self, name: str, seed: int, *more: str) -> Recipe:
        return load(name, [*self.overrides, *more, f"seed={seed}", "tracking.mode=disabled"])


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table by its name on pages, if there are rows for it."""
    plain = [row for row in rows if not row["overrides"]]
    return {"flow": way_table(plain)} if plain else {}


def way_table(rows: Sequence[Row]) -> str:
    """One line for each way and number of epochs."""
    known = by_way(rows)
    long = max(epochs for _, epochs in known)
    scratch = {row["seed"]: row for row in known.get((ALONE, long), [])}
    lines = []
    for (way, epochs), some in known.items():
        pairs = [(row, scratch[row["seed"]]) for row in some if row["seed"] in scratch]
        gains = [other["test"]["epe"] - row["test"]["epe"] for row, other in pairs]
        lines.append(
            [
                way,
                str(epochs),
                str(len(some)),
                f"{statistics.mean(row['seconds'][-1] for row in some):.0f}",
                spread([row["curve"][-1] for row in some]),
                spread([row["test"]["epe"] for row in some]),
                spread([100 * row["test"]["fl_all"] for row in some]),
                spread(gains) if gains else "-",
                reached(pairs),
            ]
        )
    columns = ["trained", "epochs", "seeds", "CPU s", "validation EPE, px", "test EPE, px", "test Fl-all, %"]
    return table([*columns, f"better than alone, {long} epochs, px", "as good after: epochs (CPU s)"], lines)


def by_way(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """Rows of each way and number of epochs, seed by seed."""
    keys = sorted({(row["way"], row["epochs"]) for row in rows}, key=lambda key: (list(WAYS).index(key[0]), -key[1]))
    ordered = sorted(rows, key=lambda row: row["seed"])
    return {key: [row for row in ordered if (row["way"], row["epochs"]) == key] for key in keys}


def reached(pairs: Sequence[tuple[Row, Row]]) -> str:
    """When each seed's validation error is that of the same one alone in the end: every epoch, and the mean seconds."""
    epochs = [next((e for e, x in enumerate(row["curve"]) if x <= other["curve"][-1]), None) for row, other in pairs]
    seconds = [row["seconds"][e] for (row, _), e in zip(pairs, epochs, strict=True) if e is not None]
    shown = ", ".join("never" if e is None else str(e + 1) for e in epochs)
    return f"{shown} ({statistics.mean(seconds):.0f})" if seconds else shown


def curves(rows: Sequence[Row]) -> Iterator[tuple[str, int, list[float], list[Row]]]:
    """Way, number of epochs, the mean curve over seeds, and the rows themselves."""
    for (way, epochs), some in by_way(rows).items():
        yield way, epochs, [statistics.mean(x) for x in zip(*(row["curve"] for row in some), strict=True)], some


def draw(rows: Sequence[Row], path: Path) -> None:
    """Means over seeds by epoch and by seconds, each seed as a dot."""
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "distill", "font.size": 9, "axes.edgecolor": INK})
    figure, (by_epoch, by_second) = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    longest = max(row["epochs"] for row in rows)
    for way, epochs, means, some in curves(rows):
        style = {"color": LINES[way], "linestyle": "-" if epochs == longest else "--"}
        by_epoch.plot(range(1, len(means) + 1), means, **style, label=f"{way}, {epochs} epochs")
        seconds = [statistics.mean(x) for x in zip(*(row["seconds"] for row in some), strict=True)]
        by_second.plot(seconds, means, **style)
        for row in some:
            by_epoch.plot(range(1, len(means) + 1), row["curve"], ".", color=LINES[way], markersize=3, alpha=0.5)
    by_epoch.set(xlabel="epoch", ylabel="validation end-point error, px")
    by_second.set(xlabel="CPU seconds")
    by_epoch.xaxis.get_major_locator().set_params(integer=True)
    for axes in (by_epoch, by_second):
        axes.spines[["top", "right"]].set_visible(False)
    by_epoch.legend(frameon=False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


@command
def main() -> None:
    """Train what is not in the file yet, print, draw."""
    parser = described(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what differs from the recipes")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/flow"), help="for the teacher and work under way")
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--picture", type=Path, default=Path("docs/tasks/flow.svg"))
    options = parser.parse_intermixed_args()
    console.quiet = True
    torch.set_num_threads(1)
    bench = Bench(options.output, options.results, tuple(options.overrides))
    long = bench.whole_epochs()
    budgets = [(way, epochs) for epochs in (long, long // 2) for way in WAYS]
    rows = [bench.measured(way, epochs, seed) for seed in range(options.seeds) for way, epochs in budgets]
    print(way_table(rows))
    draw(rows, options.picture)


if __name__ == "__main__":
    main()
