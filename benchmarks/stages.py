"""Stage by stage through a recipe: accuracy on the test split, bytes, operations, milliseconds.

    python -m benchmarks.stages characters/hybrid [--seeds 3] [--output runs]

Trains and compresses as the recipe says, with several seeds and the teacher of the first; what runs have finished is
reused, and a seed that is in the file is not measured again. Networks are timed in ONNX Runtime on one
thread, in turns, so that what disturbs one disturbs all: medians and quartiles. Operations are
multiply-accumulates for one image; effective ones leave out products with zeros, which only sparse kernels do. Each
stage is one line of ``benchmarks/results/stages.jsonl``; `python -m benchmarks.tables` makes the tables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from benchmarks import _quartiles
from benchmarks._command import command, described
from benchmarks._jobs import spread
from benchmarks._over_seeds import grouped, middle
from benchmarks._page import measured_here
from benchmarks._results import RESULTS, Row, append, measured, read, table
from distill.artifact import Artifact
from distill.batch import Batch, Predict
from distill.cli.arguments import positive
from distill.export import exporter
from distill.measure.costs import costs
from distill.measure.evaluation import evaluate, to_accelerator
from distill.measure.latency import round_robin
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_baseline, train_student, train_teachers
from distill.pipeline.step_store import NETWORK, Finished
from distill.recipe.loading import load
from distill.recipe.schema import Recipe
from distill.tasks import Task

FILE = RESULTS / "stages.jsonl"
IDENTITY = ("recipe", "overrides", "seed", "stage")
BATCHES = (1, 32)
TEACHER, ALONE, TRAINED = "teacher", "student alone", "trained"
COSTS = {"bytes": ("bytes", "smaller"), "macs": ("macs", "fewer"), "effective_macs": ("macs", "fewer")}
"""Each is compared with one of the trained network."""
SECONDS = 1.5
"""For each network and batch size, on average."""


def measure(recipe: str, overrides: Sequence[str], seed: int, output: Path) -> list[Row]:
    """One row for the teacher, which all seeds share, one for the student alone where the recipe has them, and one for
    each network that it makes of its student."""
    shared = teacher_of(recipe, overrides, output) if seed else []
    with Experiment.open(opened(recipe, [*overrides, *shared], seed, output)) as experiment:
        made = networks(experiment)
        artifacts = {name: done.artifact for name, done in made.items()}
        samples, task = experiment.data.calibration(128), experiment.task
        times = race(
            {name: runnable(artifact, samples, task) for name, artifact in artifacts.items()},
            samples[0].inputs,
            TRAINED,
        )
        models = {name: to_accelerator(deployable(artifact.model)) for name, artifact in artifacts.items()}
        found = evaluate(models, experiment.data.test_dataloader(), task, reference=TEACHER)
        return [
            {
                **{"recipe": recipe, "overrides": " ".join(overrides), "seed": seed, "stage": name},
                "test": found[name],
                "units": dict(task.units),
                "bytes": made[name].step.bytes,
                **costs_of(artifact, samples[0].inputs),
                **times[name],
                "measured": measured_here(),
            }
            for name, artifact in artifacts.items()
            if not (seed and name.startswith("teacher"))
        ]


def opened(recipe: str, overrides: Sequence[str], seed: int, output: Path) -> Recipe:
    return load(recipe, [*overrides, f"seed={seed}", f"output={output}", "tracking.mode=disabled"])


def networks(experiment: Experiment) -> dict[str, Finished]:
    """All that a recipe trains and makes, by the name of its row."""
    teachers = train_teachers(experiment)
    alone = {ALONE: train_baseline(experiment)} if experiment.recipe.baseline and teachers else {}
    stages = train_student(experiment, teachers)
    trained = [*stages.values()][-1]
    return {**teachers, **alone, TRAINED: trained, **compress(experiment, trained, teachers | stages)}


def teacher_of(recipe: str, overrides: Sequence[str], output: Path) -> list[str]:
    """Settings that give another seed the teacher of seed 0, which is trained here if it is not there."""
    with Experiment.open(opened(recipe, overrides, 0, output)) as experiment:
        if not train_teachers(experiment):
            return []
        return [f"teacher.weights={experiment.folder / 'teacher' / NETWORK}", "teacher.epochs=0"]


def costs_of(artifact: Artifact, images: Tensor) -> Row:
    """Parameters and multiply-accumulates, all of them and those that are not of zeros."""
    found = costs(artifact, images)
    params, macs = found["effective_params"], found["effective_macs"]
    return {
        **found,
        "effective_params": found["params"] if params is None else params,
        "effective_macs": found["macs"] if macs is None else macs,
    }


def runnable(artifact: Artifact, samples: list[Batch], task: Task) -> Predict:
    """The network in ONNX Runtime on one thread, on integers where it has them."""
    with TemporaryDirectory() as folder:
        return exporter.find("onnx")(artifact, Path(folder), samples, task).single()


def race(
    networks: Mapping[str, Predict], images: Tensor, against: str, batches: Sequence[int] = BATCHES
) -> dict[str, Row]:
    """Milliseconds of each network at each batch size, and how many times as fast as one of them it is."""
    found = round_robin(networks, images, batches, SECONDS)
    whole = found.timings[against]
    return {
        name: {
            **_quartiles.fields(timings),
            "times_as_fast": {key: whole[key].median / timing.median for key, timing in timings.items()},
            "waited": found.waited,
        }
        for name, timings in found.timings.items()
    }


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table of each recipe, and of each set of overrides, by its name on pages."""
    return {
        f"stages {recipe} {overrides}".rstrip(): recipe_table(some)
        for (recipe, overrides), some in grouped(rows, "recipe", "overrides").items()
    }


def recipe_table(rows: Sequence[Row]) -> str:
    """Stage by stage: metrics over seeds, the rest of the middle one; compared with what was trained."""
    stages = grouped(rows, "stage")
    first, *_ = stages[TRAINED,]
    titles = ["stage", "seeds", *(f"test {name.replace('_', ' ')}" for name in first["test"]), "bytes", "MACs"]
    titles += ["effective MACs", *(f"ms, {key.replace('batch', 'batch ')}" for key in first["milliseconds"])]
    lines = []
    for (stage,), some in stages.items():
        cells = [stage, str(len(some)), *(_shown(some, name) for name in first["test"])]
        cells += [_cost(some, stages[TRAINED,], key) for key in COSTS]
        cells += [_speed(some, stages[TRAINED,], key) for key in first["milliseconds"]]
        lines.append(cells)
    text = table(titles, lines)
    return f"{text}\n\n{measured(rows)}{_quartiles.note(rows, text, TRAINED)}"


def _cost(rows: Sequence[Row], trained: Sequence[Row], key: str) -> str:
    of, word = COSTS[key]
    own, whole = middle(rows, lambda row: row[key]), middle(trained, lambda row: row[of])
    return f"{own:,.0f}" + (f" ({whole / own:.1f} times {word})" if whole >= own else "")


def _speed(rows: Sequence[Row], trained: Sequence[Row], key: str) -> str:
    own = middle(rows, lambda row: row["milliseconds"][key])
    text = f"{own:.3f} ({middle(rows, lambda row: row['times_as_fast'][key]):.2f} times as fast)"
    if rows is trained:
        return text
    return _quartiles.marked(text, *(_quartiles.middle_quartiles(some, key) for some in (rows, trained)))


def _shown(rows: Sequence[Row], metric: str) -> str:
    values = [row["test"][metric] for row in rows if metric in row["test"]]
    if not values:
        return "-"
    unit = rows[0]["units"].get(metric, "")
    return f"{spread([100 * value for value in values])} %" if unit == "%" else f"{spread(values, 3)} {unit}".rstrip()


@command
def main() -> None:
    """Measure one recipe."""
    parser = described(__doc__)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", help="as for train.py")
    parser.add_argument("--seeds", type=positive, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_intermixed_args()
    named = (options.recipe, " ".join(options.overrides))
    known = {(row["recipe"], row["overrides"], row["seed"]) for row in read(options.results, IDENTITY)}
    for seed in range(options.seeds):
        if (*named, seed) not in known:
            append(options.results, *measure(options.recipe, options.overrides, seed, options.output))
    print(recipe_table([row for row in read(options.results, IDENTITY) if (row["recipe"], row["overrides"]) == named]))


if __name__ == "__main__":
    main()
