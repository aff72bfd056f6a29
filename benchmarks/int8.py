"""Integers against float32 at the size of ImageNet: what `int8` gains where a run takes milliseconds.

    pip install -e '.[openvino]'
    python -m benchmarks.int8 [--students resnet18 ...] [--size 224]

Whole networks of 1,000 classes, with first weights and random images, for speed depends on neither. Timed interleaved
in ONNX Runtime and OpenVINO, on one and on two threads, batches of 1 and 32. Each network is a line of
``benchmarks/results/int8.jsonl``, and what is there is not timed again; `python -m benchmarks.tables` makes the tables
of docs/benchmarks/int8.md.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import _race
from benchmarks._command import command, described
from benchmarks._jobs import say
from benchmarks._results import RESULTS, Row, kept
from distill.artifact import Artifact
from distill.batch import Batch
from distill.cli.arguments import positive
from distill.compress import hook
from distill.models.build import build_network

FILE = RESULTS / "int8.jsonl"
IDENTITY = ("network", "size")
STUDENTS = ("resnet18", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2")
SEED = 0


def images(size: int) -> list[Batch]:
    """Thirty-two of them."""
    inputs = torch.randn(32, 3, size, size, generator=torch.Generator().manual_seed(SEED))
    return [Batch(inputs, torch.zeros(32, dtype=torch.long), torch.arange(32))]


@torch.no_grad()
def fresh(name: str, batches: list[Batch]) -> Artifact:
    """A network with its first weights, whose batch norms have seen the images."""
    entry = {"name": name, "num_classes": 1000, "channels": 3}
    torch.manual_seed(SEED)
    model = build_network(entry)
    model.train()
    for batch in batches:
        model(batch.inputs)
    return Artifact(model.eval(), network=entry)


def measure(name: str, size: int) -> Row:
    """A network in float32 and on integers."""
    batches = images(size)
    dense = fresh(name, batches)
    entrants = {"fp32": dense, "int8": hook.find("int8")(dense, batches, lambda _: 0.0)}
    exported = {title: _race.exported(artifact, batches) for title, artifact in entrants.items()}
    return _race.race(exported, batches[0].inputs, "fp32")


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The table of each network, by its name on pages."""
    return {f"int8 {row['network']} {row['size']}": _race.table(row) for row in rows}


@command
def main() -> None:
    """Quantize and time what is missing."""
    parser = described(__doc__)
    parser.add_argument("--students", nargs="+", default=STUDENTS, metavar="NAME")
    parser.add_argument("--size", type=positive, default=224, help="height and width of the images")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_args()
    for name in options.students:
        named = {"network": name, "size": options.size}
        say(_race.table(kept(options.results, named, partial(measure, name, options.size))))


if __name__ == "__main__":
    main()
