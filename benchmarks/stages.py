"""Stage by stage through a recipe: accuracy on the test split, bytes, operations, milliseconds.

    python -m benchmarks.stages characters/hybrid [--seed 0] [--output runs]

Trains and compresses as the recipe says; what its run has finished is reused. Networks are timed in ONNX Runtime on one
thread, in turns, so that what disturbs one disturbs all; ratios are of the same turn. Operations are
multiply-accumulates for one image; effective ones leave out products with zeros, which only sparse kernels do. Each
stage is one line of ``benchmarks/results/stages.jsonl``; `python -m benchmarks.tables` makes the tables.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from benchmarks._page import measured_here
from benchmarks._results import RESULTS, Row, append, table
from distill.artifact import Artifact
from distill.batch import Batch, Predict
from distill.console import quiet_libraries
from distill.export import exporter
from distill.measure.costs import costs
from distill.measure.evaluation import score, to_accelerator
from distill.measure.latency import timings
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_student, train_teachers
from distill.recipe.loading import load
from distill.tasks import Task

FILE = RESULTS / "stages.jsonl"
IDENTITY = ("recipe", "overrides", "seed", "stage")
BATCHES = (1, 32)
ROUNDS = 15
SECONDS = 0.1
"""For each network and batch size, in each round."""


def measure(recipe: str, overrides: Sequence[str], seed: int, output: Path) -> list[Row]:
    """One row for each network that the recipe makes of its student."""
    settings = [*overrides, f"seed={seed}", f"output={output}", "tracking.mode=disabled"]
    with Experiment.open(load(recipe, settings)) as experiment:
        teachers = train_teachers(experiment)
        stages = train_student(experiment, teachers)
        trained = [*stages.values()][-1]
        made = {"trained": trained, **compress(experiment, trained, teachers | stages)}
        artifacts = {name: done.artifact for name, done in made.items()}
        samples, task = experiment.data.calibration(128), experiment.task
        times = race(
            {name: runnable(artifact, samples, task) for name, artifact in artifacts.items()}, samples[0].inputs
        )
        test = experiment.data.test_dataloader()
        return [
            {
                **{"recipe": recipe, "overrides": " ".join(overrides), "seed": seed, "stage": name},
                "test": score(to_accelerator(deployable(artifact.model)), test, task),
                **{"monitor": task.monitor, "unit": task.units.get(task.monitor, "")},
                "bytes": made[name].step.bytes,
                **costs_of(artifact, samples[0].inputs),
                **times[name],
                "measured": measured_here(),
            }
            for name, artifact in artifacts.items()
        ]


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


def race(networks: Mapping[str, Predict], images: Tensor, batches: Sequence[int] = BATCHES) -> dict[str, Row]:
    """Milliseconds of each network at each batch size, and how many times as fast as the first one it is."""
    rounds = [
        {name: timings(network, images, batches, SECONDS) for name, network in networks.items()} for _ in range(ROUNDS)
    ]
    first = next(iter(networks))
    found: dict[str, Row] = {}
    for name in networks:
        pairs = {key: [(one[first][key].p25, one[name][key].p25) for one in rounds] for key in rounds[0][name]}
        found[name] = {
            "milliseconds": {key: statistics.median(own for _, own in some) for key, some in pairs.items()},
            "times_as_fast": {key: statistics.median(a / b for a, b in some) for key, some in pairs.items()},
        }
    return found


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table of each recipe, with its first seed, by its name on pages."""
    plain = [row for row in rows if not row["overrides"] and row["seed"] == 0]
    names = dict.fromkeys(row["recipe"] for row in plain)
    return {f"stages {name}": recipe_table([row for row in plain if row["recipe"] == name]) for name in names}


def recipe_table(rows: Sequence[Row]) -> str:
    """Stage by stage."""
    first = rows[0]
    metrics, batches = [*first["test"]], [*first["milliseconds"]]
    titles = ["stage", *(f"test {name.replace('_', ' ')}" for name in metrics), "bytes", "MACs", "effective MACs"]
    titles += [f"ms, {key.replace('batch', 'batch ')}" for key in batches]
    lines = []
    for row in rows:
        cells = [row["stage"], *(_shown(row, name) for name in metrics)]
        cells.append(f"{row['bytes']:,} ({first['bytes'] / row['bytes']:.1f} times smaller)")
        cells += [f"{row[key]:,} ({first['macs'] / row[key]:.1f} times fewer)" for key in ("macs", "effective_macs")]
        cells += [f"{row['milliseconds'][key]:.3f} ({row['times_as_fast'][key]:.2f} times as fast)" for key in batches]
        lines.append(cells)
    return f"{table(titles, lines)}\n\n{first['measured']}"


def _shown(row: Row, metric: str) -> str:
    value = row["test"][metric]
    return f"{100 * value:.2f} %" if row["unit"] == "%" else f"{value:.4g}"


def main() -> None:
    """Measure one recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", help="as for train.py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_intermixed_args()
    quiet_libraries()
    rows = measure(options.recipe, options.overrides, options.seed, options.output)
    for row in rows:
        append(options.results, row)
    print(recipe_table(rows))


if __name__ == "__main__":
    main()
