"""Every network of ``recipes/students`` on one small budget: parameters, MACs, accuracy, milliseconds.

    python -m benchmarks.students [--students igcnet ...] [--seeds 3] [--jobs 2] [--output runs]

Each recipe with several seeds: its student alone, and taught by one teacher, which is trained first. Finished ones are
kept in ``OUTPUT/students``: the command can be stopped and started again. Networks of seed 0 are timed in PyTorch and,
where they have an ONNX form, in ONNX Runtime, on one thread. Writes ``docs/students.md``.
"""

import argparse
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from benchmarks._jobs import at_once, say, spread
from distill.artifact import Artifact, open_artifact
from distill.console import console, quiet_libraries
from distill.errors import DistillError
from distill.measure import latency
from distill.measure.evaluation import score, to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import compress, train_baseline, train_student, train_teachers
from distill.pipeline.step_store import NETWORK
from distill.recipe.files import names, summary
from distill.recipe.loading import load

FOLDER = "students"
FIRST = f"{FOLDER}/shufflenet_v2"
"""The recipe whose teacher teaches all."""
TABLE = Path("docs/students.md")
TITLE = """# Students

Every network and every way to train or search one, on one small budget: 2,000 images of Fashion-MNIST (1,800 to train
on) and 6 epochs, alone or taught by one ResNet-20, by its soft targets and by hints from its stages (`kd`, `pkd`).
Parameters and MACs are those of what ships. Test accuracy, mean ± standard deviation over {seeds} seeds; milliseconds
of one image and of 32, on one thread, timed once (on a shared machine some come out half again too long); "none"
where a network has no ONNX form. "Alone" is the network that a recipe names, "taught" what ships: after a search, or
a hook that makes it smaller. Made by

```sh elsewhere
python -m benchmarks.students --seeds {seeds}
```
"""
COLUMNS = ("recipe", "parameters", "MACs", "alone, %", "taught, %", "PyTorch, ms", "ONNX Runtime, ms", "what it is")


@dataclass
class Measured:
    """One recipe over all seeds."""

    params: int = 0
    macs: int = 0
    alone: list[float] = field(default_factory=list)
    """Test accuracy in percent, by seed."""
    taught: list[float] = field(default_factory=list)
    artifact: str = ""
    """The file of seed 0."""


def prepared(output: Path) -> Path:
    """The teacher's weights, trained here if they are not there."""
    with Experiment.open(load(FIRST, settings(output, 0))) as experiment:
        train_teachers(experiment)
        return experiment.folder / "teacher" / NETWORK


def settings(output: Path, seed: int) -> list[str]:
    return [f"seed={seed}", f"output={output}", "tracking.mode=disabled"]


def measured(name: str, seeds: int, output: Path, teacher: Path) -> Measured:
    """Train and judge one recipe."""
    found = Measured()
    taught = [f"teacher.weights={teacher}", "teacher.epochs=0"]
    for seed in range(seeds):
        with Experiment.open(load(f"{FOLDER}/{name}", [*settings(output, seed), *taught])) as experiment:
            teachers = train_teachers(experiment)
            alone = train_baseline(experiment)
            stages = train_student(experiment, teachers)
            trained = list(stages.values())[-1]
            last = list({"student": trained, **compress(experiment, trained, teachers | stages)}.values())[-1]
            found.alone.append(accuracy(experiment, alone.artifact))
            found.taught.append(accuracy(experiment, last.artifact))
            if seed == 0:
                found.params, found.macs = last.step.params, last.step.macs
                found.artifact = str(experiment.folder / "student.safetensors")
                last.artifact.save(found.artifact)
    return found


def accuracy(experiment: Experiment, artifact: Artifact) -> float:
    model = to_accelerator(deployable(artifact.model))
    return 100 * score(model, experiment.data.test_dataloader(), experiment.task)["accuracy"]


def times(file: str) -> tuple[str, str]:
    """Milliseconds of batches of 1 and 32, in PyTorch and in ONNX Runtime."""
    artifact = open_artifact(file)
    shape = artifact.about["input"]
    images = torch.randn(32, shape["channels"], shape["height"], shape["width"])
    model = deployable(artifact.model).eval()
    with torch.inference_mode():
        eager = [timing.median for timing in latency.timings(model, images, (1, 32)).values()]
    try:
        exported = list(latency.latency(model, images, batch_sizes=(1, 32)).values())
    except DistillError:
        exported = []
    pytorch, onnx = (" / ".join(f"{ms:.2f}" for ms in some) or "none" for some in (eager, exported))
    return pytorch, onnx


def row(name: str, found: Measured) -> str:
    """A line of the table."""
    counts = [f"{found.params:,}", f"{found.macs:,}", spread(found.alone), spread(found.taught)]
    return f"| {' | '.join([name, *counts, *times(found.artifact), summary(f'{FOLDER}/{name}')])} |"


def main() -> None:
    """Measure what is missing, and write the table."""
    students = [name.rpartition("/")[2] for name in names() if name.startswith(f"{FOLDER}/")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=students, choices=students, metavar="RECIPE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="recipes at a time, each on one thread")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--teacher", type=Path, help=argparse.SUPPRESS)  # measure here, with this one
    options = parser.parse_args()
    quiet_libraries()
    kept = {name: options.output / FOLDER / f"{name}-{options.seeds}.json" for name in options.students}
    if options.teacher:
        (name,) = options.students
        kept[name].write_text(json.dumps(asdict(measured(name, options.seeds, options.output, options.teacher))))
        return
    console.quiet = True
    if left := [name for name, file in kept.items() if not file.exists()]:
        shared = [f"--seeds={options.seeds}", f"--output={options.output}", f"--teacher={prepared(options.output)}"]
        parts = {name: [*shared, "--students", name] for name in left}
        at_once(parts, options.output / FOLDER, options.jobs, "benchmarks.students")
    rows = {name: Measured(**json.loads(file.read_text())) for name, file in kept.items() if file.exists()}
    torch.set_num_threads(1)
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *(row(*item) for item in rows.items())]
    TABLE.write_text("\n".join([TITLE.format(seeds=options.seeds), *lines, ""]))
    say(f"{TABLE}: {len(rows)} recipes; failed, see {options.output / FOLDER}/*.log: {sorted(kept.keys() - rows)}")


if __name__ == "__main__":
    main()
