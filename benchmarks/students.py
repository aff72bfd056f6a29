"""Every network of ``recipes/students`` on one small budget: parameters, MACs, accuracy, milliseconds.

    python -m benchmarks.students [--students igcnet ...] [--longer 5] [--seeds 3] [--jobs 2] [--output runs]

Each recipe with several seeds: its student alone, and taught by one teacher, which is trained first. ``--longer 5``
gives students five times the recipes' epochs, in a table of their own. Networks of seed 0 are timed in PyTorch and,
where they have an ONNX form, in ONNX Runtime, on one thread, in turns. Each recipe and seed, and the
times of each recipe, are a line of ``benchmarks/results/students.jsonl``, and what is there is not measured again;
`python -m benchmarks.tables` makes the table of docs/students.md.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import _quartiles, _results
from benchmarks._command import command, described
from benchmarks._jobs import at_once, say
from benchmarks._over_seeds import grouped, shown
from benchmarks._page import measured_here
from benchmarks._results import RESULTS, Row, append, kept, read
from distill.artifact import Artifact, open_artifact
from distill.cli.arguments import positive
from distill.console import console
from distill.errors import ExportError
from distill.measure import latency
from distill.measure.evaluation import score, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_baseline, train_student, train_teachers
from distill.pipeline.step_store import NETWORK
from distill.recipe.files import names, summary
from distill.recipe.loading import load

FILE = RESULTS / "students.jsonl"
IDENTITY = ("recipe", "longer", "seed", "batches")
"""A line has either a seed or the sizes of the batches that were timed."""
BATCHES = (1, 32)
FOLDER = "students"
FIRST = f"{FOLDER}/shufflenet_v2"
"""The recipe whose teacher teaches all."""
COLUMNS = ("recipe", "parameters", "MACs", "alone, %", "taught, %", "PyTorch, ms", "ONNX Runtime, ms", "what it is")


def prepared(output: Path) -> Path:
    """The teacher's weights, trained here if they are not there."""
    with Experiment.open(load(FIRST, settings(output, 0))) as experiment:
        train_teachers(experiment)
        return experiment.folder / "teacher" / NETWORK


def settings(output: Path, seed: int) -> list[str]:
    return [f"seed={seed}", f"output={output}", "tracking.mode=disabled"]


def lengthened(name: str, longer: int) -> list[str]:
    """Settings that give all stages of a student, and the training after hooks, so many times their epochs."""
    recipe = load(f"{FOLDER}/{name}")
    epochs = {f"stages.{key}": stage.epochs for key, stage in recipe.stages.items()}
    epochs |= {
        f"compress.{key}.finetune": hook.finetune.epochs for key, hook in recipe.compress.items() if hook.finetune
    }
    return [f"{place}.epochs={longer * count}" for place, count in epochs.items()]


def measure(name: str, seed: int, output: Path, teacher: Path, longer: int) -> Row:
    """Train and judge one recipe: accuracy on the test split in percent, ``alone`` and ``taught``."""
    fixed = [f"teacher.weights={teacher}", "teacher.epochs=0", *lengthened(name, longer)]
    with Experiment.open(load(f"{FOLDER}/{name}", [*settings(output, seed), *fixed])) as experiment:
        teachers = train_teachers(experiment)
        alone = train_baseline(experiment)
        stages = train_student(experiment, teachers)
        trained = list(stages.values())[-1]
        last = list({"student": trained, **compress(experiment, trained, teachers | stages)}.values())[-1]
        if seed == 0:
            last.artifact.save(artifact_of(name, output, longer))
        return {
            "params": last.step.params,
            "macs": last.step.macs,
            "alone": accuracy(experiment, alone.artifact),
            "taught": accuracy(experiment, last.artifact),
        }


def artifact_of(name: str, output: Path, longer: int) -> Path:
    """What seed 0 ships."""
    return output / FOLDER / f"{name}{'' if longer == 1 else f'-{longer}'}.safetensors"


def accuracy(experiment: Experiment, artifact: Artifact) -> float:
    model = to_accelerator(deployable(artifact.model))
    return 100 * score(model, experiment.data.test_dataloader(), experiment.task)["accuracy"]


def times(files: Mapping[str, Path]) -> dict[str, Row]:
    """Milliseconds of each recipe's network at each batch size, in PyTorch and in ONNX Runtime, all in turns."""
    artifacts = {name: open_artifact(file) for name, file in files.items()}
    images = {name: _noise(artifact) for name, artifact in artifacts.items()}
    models = {name: deployable(artifact.model).eval() for name, artifact in artifacts.items()}
    sessions = {}
    for name, model in models.items():
        with suppress(ExportError):
            sessions[name] = latency.predictor(model, images[name])
    with torch.inference_mode():
        eager = latency.round_robin(models, images, BATCHES)
    onnx = latency.round_robin(sessions, images, BATCHES)
    waited = {"waited": max(eager.waited, onnx.waited)}
    return {
        name: {**_columns("pytorch", eager.timings[name]), **_columns("onnx", onnx.timings.get(name)), **waited}
        for name in files
    }


def _noise(artifact: Artifact) -> Tensor:
    shape = artifact.about["input"]
    return torch.randn(max(BATCHES), shape["channels"], shape["height"], shape["width"])


def _columns(way: str, timings: Mapping[str, latency.Timing] | None) -> Row:
    """Medians and quartiles by batch size; None without an ONNX form."""
    own = timings and list(timings.values())
    return {
        f"{way}_ms": own and [timing.median for timing in own],
        f"{way}_quartiles_ms": own and [list(timing.quartiles) for timing in own],
    }


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The tables by their names on pages: one for each length of training."""
    lengths = dict.fromkeys(row["longer"] for row in rows)
    return {
        "students" + ("" if longer == 1 else f" {longer} times as long"): table_of(
            [row for row in rows if row["longer"] == longer]
        )
        for longer in lengths
    }


def table_of(rows: Sequence[Row]) -> str:
    """A line for each recipe."""
    timed = {row["recipe"]: row for row in rows if "batches" in row}
    lines = []
    for (name,), seeds in sorted(grouped((row for row in rows if "batches" not in row), "recipe").items()):
        counts = [f"{seeds[0]['params']:,}", f"{seeds[0]['macs']:,}", shown(seeds, "alone"), shown(seeds, "taught")]
        speed = [_milliseconds(timed[name][key]) if name in timed else "" for key in ("pytorch_ms", "onnx_ms")]
        lines.append([name, *counts, *speed, summary(f"{FOLDER}/{name}")])
    text = _results.table(COLUMNS, lines)
    return f"{text}\n\n{_results.measured(rows)}{_quartiles.note(rows, text, '')}"


def _milliseconds(values: Sequence[float] | None) -> str:
    return " / ".join(f"{ms:.2f}" for ms in values) if values else "none"


def time_missing(options: argparse.Namespace) -> None:
    """Time the networks of seed 0 that have not been timed, against each other."""
    timed = {(row["recipe"], row["longer"]) for row in read(options.results, IDENTITY) if "batches" in row}
    files = {name: artifact_of(name, options.output, options.longer) for name in options.students}
    for name in [name for name, file in files.items() if not file.exists()]:
        say(f"{name} is not timed: see {options.output / FOLDER / name}.log")
    left = {name: file for name, file in files.items() if file.exists() and (name, options.longer) not in timed}
    torch.set_num_threads(1)
    about = {"longer": options.longer, "batches": list(BATCHES), "measured": measured_here()}
    append(options.results, *({"recipe": name, **about, **row} for name, row in times(left).items()))


@command
def main() -> None:
    """Measure what is missing."""
    students = [name.rpartition("/")[2] for name in names() if name.startswith(f"{FOLDER}/")]
    parser = described(__doc__)
    parser.add_argument("--students", nargs="+", default=students, choices=students, metavar="RECIPE")
    parser.add_argument(
        "--longer", type=positive, default=1, metavar="TIMES", help="as many epochs as the recipes have"
    )
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--jobs", type=positive, default=2, help="recipes at a time, each on one thread")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--teacher", type=Path, help=argparse.SUPPRESS)  # measure here, with this one
    options = parser.parse_args()
    console.quiet = True
    if options.teacher:
        (name,) = options.students
        for seed in range(options.seeds):
            work = partial(measure, name, seed, options.output, options.teacher, options.longer)
            kept(options.results, {"recipe": name, "longer": options.longer, "seed": seed}, work)
        return
    rows = [row for row in read(options.results, IDENTITY) if row["longer"] == options.longer]
    known = {(row["recipe"], row.get("seed")) for row in rows}
    if left := [name for name in options.students if any((name, seed) not in known for seed in range(options.seeds))]:
        shared = [f"--seeds={options.seeds}", f"--output={options.output}", f"--results={options.results}"]
        shared += [f"--teacher={prepared(options.output)}", f"--longer={options.longer}"]
        parts = {name: [*shared, "--students", name] for name in left}
        at_once(parts, options.output / FOLDER, options.jobs, "benchmarks.students")
    time_missing(options)


if __name__ == "__main__":
    main()
