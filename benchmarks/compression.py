"""The main ways to compress, on five students taught by one teacher: accuracy, bytes, milliseconds.

    pip install -e '.[openvino]'
    python -m benchmarks.compression [--students resnet20 ...] [--ways svd int8 ...] [--seeds 3] [--jobs 2]

The recipe ``fashion_mnist/hybrid`` with other students and other hooks. All seeds share one teacher, which is trained
first, as the recipe says; students see half as many images (``--limit``). Compressed networks are kept in
``OUTPUT/compression``. At the end the networks of seed 0 are timed, interleaved, in ONNX Runtime and OpenVINO;
``--no-race`` leaves that out. Each network, and the times of each student, are a line of
``benchmarks/results/compression.jsonl``, and what is there is not measured again; `python -m benchmarks.tables` makes
the tables of docs/benchmarks/compression.md.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks import _race, _results
from benchmarks._command import command, described
from benchmarks._jobs import at_once, say, spread
from benchmarks._over_seeds import grouped, shown
from benchmarks._results import RESULTS, Row, kept
from distill.artifact import open_artifact
from distill.artifact.step import Step
from distill.batch import Batch
from distill.cli.arguments import positive
from distill.console import console
from distill.data import data as datasets
from distill.errors import DistillError
from distill.measure.evaluation import score, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_student, train_teachers
from distill.pipeline.step_store import NETWORK
from distill.recipe.loading import load
from distill.registry import call

FILE = RESULTS / "compression.jsonl"
IDENTITY = ("student", "way", "seed", "race")
"""A line has either a way and a seed, or the name of a race."""
RACE = "compression"
TEACHER = "teacher"
RECIPE = "fashion_mnist/hybrid"


@dataclass(frozen=True)
class Student:
    """A network and how it is trained."""

    network: str
    optimizer: str = "name: sgd, nesterov: true, weight_decay: 5e-4"
    lr: float = 0.05
    linear: str = "fc"
    """Its last layer."""

    def trained(self, part: float = 1.0) -> str:
        """With that part of the learning rate."""
        return f"{{{self.optimizer}, lr: {part * self.lr:g}}}"

    def tuned(self, epochs: int, part: float, taught: str = "") -> str:
        """Training after a hook, by the teacher if ``taught`` does not say otherwise."""
        return f"finetune: {{epochs: {epochs}, optimizer: {self.trained(part)}{taught}}}"


STUDENTS = {
    "resnet20": Student("{name: resnet20}"),
    "mobilenet_v2": Student("{name: mobilenet_v2, width: 0.5, small_images: true}", linear="classifier.1"),
    "shufflenet_v2": Student("{name: shufflenet_v2, width: 0.5, small_images: true}"),
    # Without batch norms and with a ReLU for a last layer it does not begin to learn by SGD.
    "mobilenet_v1": Student("{name: mobilenet_v1, width: 0.5, small_images: true}"),
    "squeezenet": Student(
        "{name: squeezenet1_1, small_images: true}", "name: adamw, weight_decay: 1e-4", lr=0.001, linear="classifier.1"
    ),
}


def plain_svd(part: float) -> Callable[[Student], str]:
    """What everybody does: errors of weights decide, nothing is timed."""
    return lambda one: f"svd: {{max_macs: {part}, weighting: none, {one.tuned(2, 0.2)}}}"


TAUGHT_BY_ITSELF = ", teacher: distill, task_weight: 0.1, losses: {kd: {weight: 0.9, temperature: 4}}"
"""By what the network was before the hook: the stage ``distill`` left it."""
WAYS: dict[str, Callable[[Student], str]] = {
    "fp32": lambda _: "",
    "svd": lambda one: f"svd: {{max_params: 0.5, {one.tuned(1, 0.2)}}}",
    "tucker": lambda one: f"tucker: {{max_params: 0.5, {one.tuned(1, 0.2)}}}",
    "cp": lambda one: f"cp: {{max_params: 0.5, {one.tuned(1, 0.2)}}}",
    "tensor_train": lambda one: f"tensor_train: {{max_params: 0.5, {one.tuned(2, 0.2)}}}",
    "prune": lambda one: f"prune: {{sparsity: 0.8, rounds: 2, {one.tuned(1, 0.2)}}}, encode: {{}}",
    "prune_channels": lambda one: f"prune_channels: {{max_macs: 0.5, {one.tuned(2, 0.2)}}}",
    "prune_channels, speed": lambda one: f"prune_channels: {{max_macs: 0.5, aim: speed, {one.tuned(2, 0.2)}}}",
    "int8": lambda _: "int8: {}, encode: {}",
    "int8, trained": lambda one: f"int8: {{{one.tuned(1, 0.01)}}}, encode: {{}}",
    "4 bits": lambda one: f"quantize: {{bits: 4, {one.tuned(1, 0.02)}}}, encode: {{}}",
    "hybrid": lambda one: (
        f"tensor_train: {{max_params: 0.5, {one.tuned(2, 0.2)}}}, "
        f"prune: {{sparsity: 0.5, layers: [{one.linear}], {one.tuned(1, 0.1)}}}, quantize: {{bits: 8}}, encode: {{}}"
    ),
    "trains": lambda one: (
        f"tensor_train: {{max_params: 0.3, {one.tuned(4, 0.4, TAUGHT_BY_ITSELF)}}}, quantize: {{bits: 8}}, encode: {{}}"
    ),
    "svd, speed": lambda one: f"svd: {{max_macs: 0.6, aim: speed, {one.tuned(2, 0.2)}}}",
    "tt_matrix, speed": lambda one: f"tt_matrix: {{max_macs: 0.8, aim: speed, {one.tuned(2, 0.2)}}}",
    "tensor_train, speed": lambda one: f"tensor_train: {{max_macs: 0.6, aim: speed, {one.tuned(2, 0.2)}}}",
    **{f"plain svd {part}": plain_svd(part) for part in (0.65, 0.5, 0.35)},
}


FACTORS = tuple(way for way in WAYS if way.startswith(("svd, ", "tt_matrix, ", "tensor_train, ", "plain ")))
"""Compared in a table of their own, by `benchmarks.contractions`."""
Networks = Mapping[tuple[Any, ...], Sequence[Row]]
"""By student and way, seed by seed."""
UNTIMED = {"prune", "int8, trained", "4 bits"}
"""Ways that change values, not what is computed: they run as ``fp32`` and ``int8`` do."""


def settings(output: Path, seed: int) -> list[str]:
    return [f"seed={seed}", f"output={output}", "tracking.mode=disabled"]


def teacher(output: Path, results: Path) -> Path:
    """The weights of the teacher, trained here if they are not there."""
    with Experiment.open(load(RECIPE, settings(output, 0))) as experiment:
        done = train_teachers(experiment)["teacher"]
        named = {"student": TEACHER, "way": "", "seed": 0}
        kept(results, named, lambda: judged(experiment, done.artifact.model, done.step))
        return experiment.folder / "teacher" / NETWORK


def judged(experiment: Experiment, model: nn.Module, step: Step) -> Row:
    """Accuracy in percent on the test split, and sizes."""
    return {"test": test(experiment, model), "params": step.params, "macs": step.macs, "bytes": step.bytes}


@contextmanager
def opened(options: argparse.Namespace, student: str, way: str, seed: int) -> Iterator[Experiment]:
    """What compresses that student in that way, taught by that teacher."""
    one = STUDENTS[student]
    taught = [f"teacher.weights={options.teacher}", "teacher.epochs=0", f"data.limit={options.limit}"]
    network = [f"student={one.network}", f"optimizer={one.trained()}", f"compress={{{WAYS[way](one)}}}"]
    with Experiment.open(load(RECIPE, [*settings(options.output, seed), *taught, *network])) as experiment:
        yield experiment


def measure(options: argparse.Namespace, student: str, way: str, seed: int) -> Row:
    """Train, compress and judge one network; what earlier ways have trained is reused."""
    with opened(options, student, way, seed) as experiment:
        teachers = train_teachers(experiment)
        stages = train_student(experiment, teachers)
        trained = list(stages.values())[-1]
        last = list({"student": trained, **compress(experiment, trained, teachers | stages)}.values())[-1]
        last.artifact.save(artifact_of(options.output, student, way, seed))
        return judged(experiment, deployable(last.artifact.model), last.step)


def artifact_of(output: Path, student: str, way: str, seed: int = 0) -> Path:
    """Where a compressed network is kept."""
    return output / "compression" / f"{student}-{way.replace(' ', '')}-{seed}.safetensors"


def test(experiment: Experiment, model: nn.Module) -> float:
    """Accuracy on the test split, in percent."""
    return 100 * score(to_accelerator(model), experiment.data.test_dataloader(), experiment.task)["accuracy"]


def work(options: argparse.Namespace, student: str, seed: int) -> None:
    """Measure what is missing of one student and seed."""
    for way in options.ways:
        named = {"student": student, "way": way, "seed": seed}
        try:
            kept(options.results, named, partial(measure, options, **named))
        except DistillError as error:
            say(f"{student}, {way}, seed {seed}: {error}")


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Accuracy and size of every way, the ways to run factors by student, and the race of each student."""
    races = {f"compression race {row['student']}": _race.table(row) for row in rows if "race" in row}
    networks = grouped((row for row in rows if "race" not in row), "student", "way")
    teachers = networks.pop((TEACHER, ""), None)
    factors = {
        f"compression factors {student}": factor_table(networks, student)
        for student in dict.fromkeys(student for student, way in networks if way in FACTORS)
    }
    return races | factors | ({"compression": way_table(networks, teachers[0])} if teachers else {})


def way_table(networks: Networks, teacher: Row) -> str:
    """Accuracy, what it lost, and sizes: medians by bytes."""
    lines = [[TEACHER, "", f"{teacher['test']:.2f}", "", *sizes(teacher), f"{teacher['bytes']:,}", "1"]]
    some = {key: seeds for key, seeds in networks.items() if key[1] not in FACTORS}
    for (student, way), seeds in some.items():
        lost = "" if way == "fp32" else against(seeds, networks.get((student, "fp32"), []))
        middle = sorted(seeds, key=lambda row: row["bytes"])[len(seeds) // 2]
        size = [*sizes(middle), f"{middle['bytes']:,}", f"{teacher['bytes'] / middle['bytes']:.0f}"]
        lines.append([student, way, shown(seeds, "test"), lost, *size])
    head = ["student", "compressed by", "test, %", "against fp32", "parameters", "MACs", "bytes"]
    head.append("teacher's bytes / bytes")
    below = _results.measured(row for seeds in some.values() for row in seeds)
    return f"{_results.table(head, lines)}\n\n{below}"


def against(seeds: Sequence[Row], dense: Sequence[Row]) -> str:
    """What a way lost, seed by seed."""
    if "against_fp32" in seeds[0]:
        return shown(seeds, "against_fp32")
    plain = {row["seed"]: row["test"] for row in dense if "seed" in row}
    lost = [row["test"] - plain[row["seed"]] for row in seeds if row.get("seed") in plain]
    return spread(lost) if lost else ""


def factor_table(networks: Networks, student: str) -> str:
    """Accuracy and size of the ways to run one student's factors."""
    some = {way: networks[student, way] for way in ("fp32", *FACTORS) if (student, way) in networks}
    lines = [[way, shown(seeds, "test"), *sizes(seeds[0])] for way, seeds in some.items()]
    below = _results.measured(row for seeds in some.values() for row in seeds)
    return f"{_results.table(['network', 'test, %', 'parameters', 'MACs'], lines)}\n\n{below}"


def sizes(row: Row) -> list[str]:
    """Parameters and MACs."""
    return [f"{row['params']:,}", f"{row['macs']:,}"]


def calibration() -> list[Batch]:
    """Real images, on which exported files are checked."""
    data = load(RECIPE).data
    return call(datasets.find(data.name), data, {"seed": lambda: 0}).calibration(512)


def timed(options: argparse.Namespace, student: str, samples: list[Batch]) -> Row:
    """The networks of seed 0 against each other."""
    ways = [way for way in options.ways if way not in UNTIMED]
    found = {way: file for way in ways if (file := artifact_of(options.output, student, way)).exists()}
    entrants = {way: _race.exported(open_artifact(file), samples) for way, file in found.items()}
    return _race.race(entrants, samples[0].inputs, "fp32")


def arguments(text: str, file: Path) -> argparse.ArgumentParser:
    """What this command and `benchmarks.peers` are told alike."""
    parser = described(text)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument(
        "--limit", type=positive, default=5_000, help="images to train students on and to validate with"
    )
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--jobs", type=positive, default=2, help="students at a time, each on one thread")
    parser.add_argument("--no-race", action="store_true", help="do not time anything")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=file)
    parser.add_argument("--teacher", type=Path, help=argparse.SUPPRESS)  # measure here, with this one
    return parser


@command
def main() -> None:
    """Measure what is missing."""
    parser = arguments(__doc__, FILE)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.teacher:
        for student in options.students:
            work(options, student, options.seed)
        return
    console.quiet = True
    weights = teacher(options.output, options.results)
    shared = [f"--output={options.output}", f"--results={options.results}", f"--limit={options.limit}"]
    shared += [f"--teacher={weights}", "--ways", *options.ways]
    pairs = [(student, seed) for seed in range(options.seeds) for student in options.students]
    at_once(
        {f"{student}-{seed}": [f"--seed={seed}", *shared, "--students", student] for student, seed in pairs},
        options.output / "compression",
        options.jobs,
        "benchmarks.compression",
    )
    if not options.no_race:
        samples = calibration()
        for student in options.students:
            named = {"student": student, "race": RACE}
            say(_race.table(kept(options.results, named, partial(timed, options, student, samples))))


if __name__ == "__main__":
    main()
