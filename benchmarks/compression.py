"""Every way to compress, on four students taught by one teacher: accuracy, bytes, milliseconds.

    pip install -e '.[openvino]'
    python -m benchmarks.compression [--students resnet20 ...] [--ways svd int8 ...] [--seeds 3] [--jobs 2]

The recipe ``fashion_mnist/hybrid`` with other students and other hooks. All seeds share one teacher, which is trained
first, as the recipe says; students see half as many images (``--limit``). Trained networks are kept in ``OUTPUT``,
accuracies in ``OUTPUT/compression``: the command can be stopped and started again. At the end the networks of seed 0
are timed, interleaved, in ONNX Runtime and OpenVINO; ``--no-race`` leaves that out. Prints Markdown tables.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from benchmarks import _race
from benchmarks._jobs import at_once, say, spread
from distill.artifact import open_artifact
from distill.artifact.step import Step
from distill.batch import Batch
from distill.console import console, quiet_libraries
from distill.data import data as datasets
from distill.errors import DistillError
from distill.measure.evaluation import score, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_student, train_teachers
from distill.pipeline.step_store import NETWORK
from distill.recipe.loading import load
from distill.registry import call

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


UNTIMED = {"prune", "int8, trained", "4 bits"}
"""Ways that change values, not what is computed: they run as ``fp32`` and ``int8`` do."""


@dataclass(frozen=True)
class Measured:
    """One network."""

    test: float
    """Accuracy in percent."""
    params: int
    macs: int
    bytes: int
    """Of the artifact."""
    artifact: str
    """Its file."""


def settings(output: Path, seed: int) -> list[str]:
    return [f"seed={seed}", f"output={output}", "tracking.mode=disabled"]


def teacher(output: Path) -> tuple[Path, Measured]:
    """The weights of the teacher, trained here if they are not there, and what it is."""
    file = output / "compression" / "teacher.json"
    if not file.exists():
        with Experiment.open(load(RECIPE, settings(output, 0))) as experiment:
            done = train_teachers(experiment)["teacher"]
            weights = experiment.folder / "teacher" / NETWORK
            measured = Measured(test(experiment, done.artifact.model), *_size(done.step), str(weights))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(measured)))
    measured = Measured(**json.loads(file.read_text()))
    return Path(measured.artifact), measured


@contextmanager
def opened(options: argparse.Namespace, student: str, way: str, seed: int) -> Iterator[Experiment]:
    """What compresses that student in that way, taught by that teacher."""
    one = STUDENTS[student]
    taught = [f"teacher.weights={options.teacher}", "teacher.epochs=0", f"data.limit={options.limit}"]
    network = [f"student={one.network}", f"optimizer={one.trained()}", f"compress={{{WAYS[way](one)}}}"]
    with Experiment.open(load(RECIPE, [*settings(options.output, seed), *taught, *network])) as experiment:
        yield experiment


def measure(options: argparse.Namespace, student: str, way: str, seed: int) -> Measured:
    """Train, compress and judge one network; what earlier ways have trained is reused."""
    with opened(options, student, way, seed) as experiment:
        teachers = train_teachers(experiment)
        stages = train_student(experiment, teachers)
        trained = list(stages.values())[-1]
        last = list({"student": trained, **compress(experiment, trained, teachers | stages)}.values())[-1]
        file = experiment.folder / "student.safetensors"
        last.artifact.save(file)
        return Measured(test(experiment, deployable(last.artifact.model)), *_size(last.step), str(file))


def _size(step: Step) -> tuple[int, int, int]:
    return step.params, step.macs, step.bytes


def test(experiment: Experiment, model: nn.Module) -> float:
    """Accuracy on the test split, in percent."""
    return 100 * score(to_accelerator(model), experiment.data.test_dataloader(), experiment.task)["accuracy"]


def kept(options: argparse.Namespace, student: str, way: str, seed: int) -> Path:
    return options.output / "compression" / f"{student}-{way.replace(' ', '')}-{seed}.json"


def work(options: argparse.Namespace, student: str, seed: int) -> None:
    """Measure what is missing of one student and seed."""
    for way in options.ways:
        file = kept(options, student, way, seed)
        if not file.exists():
            try:
                measured = measure(options, student, way, seed)
            except DistillError as error:
                say(f"{student}, {way}, seed {seed}: {error}")
                continue
            file.write_text(json.dumps(asdict(measured)))


def by_seed(options: argparse.Namespace, student: str, way: str) -> dict[int, Measured]:
    """What has been measured."""
    files = {seed: kept(options, student, way, seed) for seed in range(options.seeds)}
    return {seed: Measured(**json.loads(file.read_text())) for seed, file in files.items() if file.exists()}


def results(options: argparse.Namespace, student: str, way: str) -> list[Measured]:
    return list(by_seed(options, student, way).values())


def table(options: argparse.Namespace, teacher: Measured) -> None:
    """Accuracy and size."""
    say("| student | compressed by | test, % | against fp32 | parameters | MACs | bytes | teacher's bytes / bytes |")
    say("|---" * 8 + "|")
    say(f"| teacher | | {teacher.test:.2f} | | {teacher.params:,} | {teacher.macs:,} | {teacher.bytes:,} | 1 |")
    for student in options.students:
        plain = by_seed(options, student, "fp32")
        for way in options.ways:
            if measured := by_seed(options, student, way):
                lost = [one.test - plain[seed].test for seed, one in measured.items() if seed in plain]
                found = list(measured.values())
                middle = sorted(found, key=lambda one: one.bytes)[len(found) // 2]
                cells = [
                    student,
                    way,
                    spread([one.test for one in found]),
                    spread(lost) if lost and way != "fp32" else "",
                ]
                size = [f"{middle.params:,}", f"{middle.macs:,}", f"{middle.bytes:,}"]
                say(f"| {' | '.join([*cells, *size, f'{teacher.bytes / middle.bytes:.0f}'])} |")


def calibration() -> list[Batch]:
    """Real images, on which exported files are checked."""
    data = load(RECIPE).data
    return call(datasets.find(data.name), data, {"seed": lambda: 0}).calibration(512)


def timed(options: argparse.Namespace, student: str, samples: list[Batch]) -> None:
    """The networks of seed 0 against each other."""
    ways = [way for way in options.ways if way not in UNTIMED]
    found = {way: Path(one[0].artifact) for way in ways if (one := results(options, student, way))}
    files = {way: _race.exported(open_artifact(file), samples) for way, file in found.items()}
    say(f"\n{student}, milliseconds (times as fast as fp32)\n")
    for line in _race.lines(_race.race(files, samples[0].inputs), "fp32"):
        say(line)


def arguments(text: str) -> argparse.ArgumentParser:
    """What this command and `benchmarks.peers` are told alike."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--limit", type=int, default=5_000, help="images to train students on and to validate with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="students at a time, each on one thread")
    parser.add_argument("--no-race", action="store_true", help="do not time anything")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--teacher", type=Path, help=argparse.SUPPRESS)  # measure here, with this one
    return parser


def main() -> None:
    """Measure what is missing, and print."""
    parser = arguments(__doc__)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_libraries()
    if options.teacher:
        for student in options.students:
            work(options, student, options.seed)
        return
    console.quiet = True
    weights, measured = teacher(options.output)
    shared = [f"--output={options.output}", f"--limit={options.limit}", f"--teacher={weights}", "--ways", *options.ways]
    pairs = [(student, seed) for seed in range(options.seeds) for student in options.students]
    at_once(
        {f"{student}-{seed}": [f"--seed={seed}", *shared, "--students", student] for student, seed in pairs},
        options.output / "compression",
        options.jobs,
        "benchmarks.compression",
    )
    table(options, measured)
    if not options.no_race:
        samples = calibration()
        for student in options.students:
            timed(options, student, samples)


if __name__ == "__main__":
    main()
