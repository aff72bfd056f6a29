"""A student trained block by block, from scratch, and by plain distillation: who needs how many epochs.

    python -m benchmarks.blocks --seeds 3

ResNet-20 teaches ShuffleNetV2 x0.5 on a part of Fashion-MNIST. Every way has two budgets of epochs, and for each a
learning-rate schedule of its own; from scratch there is a third, more than twice as long. The accuracies to reach are
those from scratch after its two longer budgets, of the same seed. Draws every curve (``curves.html``, ``--picture``).
Seconds are CPU time of one thread, with the validation after every epoch and the teacher's forward passes, but without
the teacher's training. Each training is a line of ``benchmarks/results/blocks.jsonl`` and is not done again;
`python -m benchmarks.tables` makes the table of docs/benchmarks/blocks.md. Needs matplotlib, for the picture.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from plotly import graph_objects as go
from torch import nn

from benchmarks import _results
from benchmarks._command import command, described
from benchmarks._jobs import spread
from benchmarks._over_seeds import grouped, shown
from benchmarks._results import RESULTS, Row, kept, read
from distill.cli.arguments import positive
from distill.data.fashion_mnist import FashionMNIST
from distill.measure.evaluation import score
from distill.pipeline.build import build_distiller, initial_artifact
from distill.recipe.loading import load
from distill.recipe.schema import Recipe, Stage
from distill.report.style import COLOURS, INK
from distill.tasks.classification import Classification
from distill.training.fit import fit

FILE = RESULTS / "blocks.jsonl"
IDENTITY = ("images", "way", "epochs", "seed")
TEACHER = "teacher"
RECIPE = "fashion_mnist/blocks"
LINES = {"scratch": COLOURS["baseline"], "kd": COLOURS["student"], "blocks": COLOURS["compress"]}


Runs = Mapping[tuple[str, int], Sequence[Row]]
"""Of each way and budget, one for every seed: ``accuracy`` on the validation split after each epoch, CPU ``seconds``
from the beginning until then, and accuracy on the ``test`` split, all in fractions."""


def ways(recipe: Recipe, epochs: int) -> dict[str, dict[str, Stage]]:
    """The stages of each way to spend ``epochs``; the recipe's share of them goes to blocks."""
    blocks, tune = recipe.stages["blocks"], recipe.stages["tune"]
    early = max(1, round(epochs * blocks.epochs / (blocks.epochs + tune.epochs)))
    return {
        "scratch": {"scratch": Stage(epochs=epochs)},
        "kd": {"kd": replace(tune, epochs=epochs, optimizer=None, schedule=None)},
        "blocks": {"blocks": replace(blocks, epochs=early), "tune": replace(tune, epochs=epochs - early)},
    }


@dataclass(frozen=True)
class Bench:
    """Data, teacher and a folder for what is done."""

    recipe: Recipe
    data: FashionMNIST
    folder: Path
    file: Path
    images: int

    def train(self, student: nn.Module, teacher: nn.Module | None, stages: Mapping[str, Stage]) -> Row:
        """All stages, one after the other."""
        task, accuracy, seconds = Classification(self.data.info), [], []
        start = time.process_time()

        def note(_title: str, _epoch: int, metrics: dict[str, float]) -> None:
            accuracy.append(metrics["val/accuracy"])
            seconds.append(time.process_time() - start)

        for name, stage in stages.items():
            module = build_distiller(self.recipe, self.data, task, student, teacher, stage)
            with tempfile.TemporaryDirectory() as folder:
                settings = {"accelerator": "cpu"}
                student = fit(module, self.data, Path(folder), title=name, settings=settings, on_epoch=note).student
        test = score(student, self.data.test_dataloader(), task)["accuracy"]
        return {"accuracy": accuracy, "seconds": seconds, "test": test}

    def teacher(self) -> nn.Module:
        """Trained once, on the same images, for all seeds of the student."""
        spec, path = self.recipe.teacher, self.folder / "teacher.pt"
        assert spec
        teacher = initial_artifact(spec, self.data, Classification(self.data.info), 0).model
        if not path.exists():
            run = self.train(teacher, None, {TEACHER: Stage(epochs=spec.epochs)})
            torch.save(teacher.state_dict(), path)
            self.kept(TEACHER, spec.epochs, 0, lambda: run)
        teacher.load_state_dict(torch.load(path, weights_only=True))
        return teacher

    def student(self, way: str, epochs: int, stages: Mapping[str, Stage], teacher: nn.Module) -> Row:
        """One way from the first weights of the recipe's seed."""
        task, seed = Classification(self.data.info), self.recipe.seed
        first = initial_artifact(self.recipe.student, self.data, task, seed).model
        return self.kept(way, epochs, seed, lambda: self.train(first, teacher, stages))

    def kept(self, way: str, epochs: int, seed: int, train: Callable[[], Row]) -> Row:
        """The run of an earlier call, or a new one."""
        return kept(self.file, {"images": self.images, "way": way, "epochs": epochs, "seed": seed}, train)


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table by its name on pages, if there are rows for it."""
    runs = grouped((row for row in rows if row["way"] != TEACHER), "way", "epochs")
    budgets = sorted((epochs for way, epochs in runs if way == "scratch"), reverse=True)
    targets = sorted(budgets[:2])
    lines = [
        [
            way,
            str(epochs),
            f"{statistics.mean(row['seconds'][-1] for row in seeds):.0f}",
            *(percent(seeds, name) for name in ("accuracy", "test")),
            *(reached(seeds, runs["scratch", budget], budget) for budget in targets),
        ]
        for (way, epochs), seeds in runs.items()
    ]
    goals = [f"epochs (seconds) to scratch's after {budget}" for budget in targets]
    head = ["trained", "epochs", "seconds", "validation, %", "test, %", *goals]
    return {"blocks": f"{_results.table(head, lines)}\n\n{_results.measured(rows)}"} if lines else {}


def percent(seeds: Sequence[Row], name: str) -> str:
    """Mean and standard deviation of the accuracy at the end."""
    if isinstance(seeds[0][name], dict):
        return shown(seeds, name)
    ends = [row[name][-1] if name == "accuracy" else row[name] for row in seeds]
    return spread([100 * end for end in ends])


def reached(seeds: Sequence[Row], scratch: Sequence[Row], budget: int) -> str:
    """When each seed is as good as the same one from scratch in the end: every seed's epoch, and the mean seconds."""
    if "reached" in seeds[0]:
        return seeds[0]["reached"][str(budget)]
    pairs = zip(seeds, scratch, strict=True)
    epochs = [first_as_good(run["accuracy"], other["accuracy"][-1]) for run, other in pairs]
    seconds = [run["seconds"][epoch - 1] for run, epoch in zip(seeds, epochs, strict=True) if epoch]
    told = ", ".join(str(epoch or "never") for epoch in epochs)
    return f"{told} ({statistics.mean(seconds):.0f})" if seconds else "never"


def first_as_good(curve: Sequence[float], target: float) -> int | None:
    """The first epoch after which it is as good as ``target``."""
    return next((epoch for epoch, value in enumerate(curve, start=1) if value >= target), None)


def curves(runs: Runs) -> Iterator[tuple[str, int, list[int], list[float]]]:
    """Way, budget, epochs and the mean accuracy over seeds in per cent."""
    for (way, budget), seeds in runs.items():
        means = [100 * statistics.mean(values) for values in zip(*(run["accuracy"] for run in seeds), strict=True)]
        yield way, budget, list(range(1, budget + 1)), means


def interactive(runs: Runs, path: Path) -> None:
    """A page to look closely at."""
    figure = go.Figure()
    for way, budget, epochs, means in curves(runs):
        line = {"color": LINES[way], "dash": dashes(runs)[budget]}
        figure.add_scatter(x=epochs, y=means, name=f"{way}, {budget} epochs", line=line)
    figure.update_layout(template="none", xaxis_title="epoch", yaxis_title="validation accuracy, %")
    figure.write_html(path)


def still(runs: Runs, path: Path) -> None:
    """The same as a picture: means over seeds, each seed as a dot."""
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "distill", "font.size": 9, "axes.edgecolor": INK})
    figure, axes = pyplot.subplots(figsize=(7.2, 3.8))
    styles = {"dash": "--", "solid": "-", "dot": ":"}
    for way, budget, epochs, means in curves(runs):
        style, label = styles[dashes(runs)[budget]], f"{way}, {budget} epochs"
        axes.plot(epochs, means, style, color=LINES[way], label=label)
        for run in runs[way, budget]:
            axes.plot(
                epochs, [100 * value for value in run["accuracy"]], ".", color=LINES[way], markersize=3, alpha=0.5
            )
    axes.set(xlabel="epoch", ylabel="validation accuracy, %", ylim=(50, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def dashes(runs: Runs) -> dict[int, str]:
    """How the curves of each budget are drawn."""
    budgets = sorted({budget for _, budget in runs}, reverse=True)
    return dict(zip(budgets, ("dash", "solid", "dot"), strict=True))


@command
def main() -> None:
    """Train what is missing, draw."""
    parser = described(__doc__)
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--images", type=positive, default=4000, help="half to train on, half to validate with")
    parser.add_argument("--epochs", type=positive, nargs=2, default=[8, 3], help="the long budget and the short one")
    parser.add_argument("--longer", type=positive, default=18, help="the third budget, of training from scratch alone")
    parser.add_argument("--output", type=Path, default=Path("runs/blocks"))
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--picture", type=Path, default=Path("docs/blocks.svg"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    runs: dict[tuple[str, int], list[Row]] = {}
    for seed in range(options.seeds):
        recipe = load(RECIPE, [f"seed={seed}", "teacher.epochs=12"])
        data = FashionMNIST(seed, limit=options.images, val=0.5, batch_size=64)
        bench = Bench(recipe, data, options.output, options.results, options.images)
        teacher = bench.teacher()
        budgets = {(way, n): stages for n in options.epochs for way, stages in ways(recipe, n).items()}
        longer = {("scratch", options.longer): ways(recipe, options.longer)["scratch"]}
        for (way, epochs), stages in {**longer, **budgets}.items():
            runs.setdefault((way, epochs), []).append(bench.student(way, epochs, stages, teacher))
    print(tables(read(options.results, IDENTITY))["blocks"])
    interactive(runs, options.output / "curves.html")
    still(runs, options.picture)


if __name__ == "__main__":
    main()
