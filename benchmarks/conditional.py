"""What gates save (LCCL): a network that computes its convolutions only where a gate is not zero, and the same network
without gates.

    python -m benchmarks.conditional --longer 5 --seeds 3

ResNet-20 with gates and without, both taught as the recipe students/lccl_resnet20 says, for several times its epochs.
What is saved is a part of the multiply-accumulates of the gated convolutions, on the test split, less what gates cost.
Milliseconds are those of PyTorch on one thread, which computes all pixels or gathers those that gates keep, in turns.
Each seed is one line of ``benchmarks/results/conditional.jsonl``; `python -m benchmarks.tables` makes the table.
"""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import _results
from benchmarks._command import command, described
from benchmarks._jobs import parsed, spread
from benchmarks._results import RESULTS, Row, kept
from benchmarks.students import accuracy, lengthened, prepared, settings
from distill.cli.arguments import positive
from distill.measure import latency
from distill.models.surgery import deployable
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_student, train_teachers
from distill.recipe.loading import load
from students.lccl import saving, skip

FILE = RESULTS / "conditional.jsonl"
IDENTITY = ("longer", "seed")
GATED = "lccl_resnet20"
PLAIN, DENSE = "shufflenet_v2", "student={name: resnet20}"
"""A recipe without losses and settings of its own, and the network without gates in place of its student."""
BATCHES = (1, 32)
COLUMNS = ("epochs", "seeds", "without gates, %", "with gates, %", "difference", "MACs saved, %")


class Trained(NamedTuple):
    """A network and what it is worth."""

    model: nn.Module
    accuracy: float
    """On the test split, in percent."""
    images: Tensor
    """Of the test split."""


@contextmanager
def trained(recipe: str, seed: int, longer: int, output: Path, teacher: Path, *changes: str) -> Iterator[Trained]:
    """The recipe's student, taught."""
    fixed = [f"teacher.weights={teacher}", "teacher.epochs=0", *lengthened(recipe, longer), *changes]
    with Experiment.open(load(f"students/{recipe}", [*settings(output, seed), *fixed])) as experiment:
        *_, last = train_student(experiment, train_teachers(experiment)).values()
        batches = [batch.inputs for batch in experiment.data.test_dataloader()]
        yield Trained(deployable(last.artifact.model).eval(), accuracy(experiment, last.artifact), torch.cat(batches))


def measure(seed: int, longer: int, output: Path, teacher: Path) -> Row:
    """Accuracies, what gates save, and how long the gated network takes."""
    with trained(PLAIN, seed, longer, output, teacher, DENSE) as dense:
        without = dense.accuracy
    with trained(GATED, seed, longer, output, teacher) as gated:
        found = saving(gated.model, gated.images[:1000])
        times = {f"batch{size}": in_turns(gated.model, gated.images[:size]) for size in BATCHES}
        return {
            "without": without,
            "gated": gated.accuracy,
            "saved": 100 * found.saved / found.macs,
            "milliseconds": {size: {way: timing.median for way, timing in one.items()} for size, one in times.items()},
            "quartiles_ms": {
                size: {way: list(timing.quartiles) for way, timing in one.items()} for size, one in times.items()
            },
        }


@torch.inference_mode()
def in_turns(model: nn.Module, images: Tensor) -> dict[str, latency.Timing]:
    """Milliseconds where all pixels are computed, and where only those are that gates keep."""

    def run(only_kept: bool) -> Tensor:
        return skip(model, only_kept)(images)

    timings = latency.in_turns({"all": partial(run, False), "kept": partial(run, True)})
    skip(model, False)
    return timings


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """A line for each length of training."""
    lines = []
    for longer in sorted({row["longer"] for row in rows}):
        some = [row for row in rows if row["longer"] == longer]
        cells = [spread([row[key] for row in some]) for key in ("without", "gated")]
        cells.append(spread([row["gated"] - row["without"] for row in some]))
        cells.append(spread([row["saved"] for row in some]))
        for size in BATCHES:
            times = [row["milliseconds"][f"batch{size}"] for row in some]
            cells.append(" / ".join(f"{statistics.median(one[way] for one in times):.2f}" for way in ("all", "kept")))
        lines.append([str(6 * longer), str(len(some)), *cells])
    head = [*COLUMNS, *(f"ms of {size}, all pixels / kept ones" for size in BATCHES)]
    return {"conditional": f"{_results.table(head, lines)}\n\n{_results.measured(rows)}"} if lines else {}


@command
def main() -> None:
    """Measure what is missing."""
    parser = described(__doc__)
    parser.add_argument("--longer", type=positive, default=5, metavar="TIMES", help="as many epochs as the recipe has")
    options = parsed(parser, FILE)
    torch.set_num_threads(1)
    teacher = prepared(options.output)
    for seed in range(options.seeds):
        work = partial(measure, seed, options.longer, options.output, teacher)
        print(kept(options.results, {"longer": options.longer, "seed": seed}, work), flush=True)


if __name__ == "__main__":
    main()
