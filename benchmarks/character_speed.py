"""How fast networks for characters get: low rank, integers, and both. Speed alone.

    python -m benchmarks.character_speed character_cnn --macs 0.25
    python -m benchmarks.character_speed hccr_cnn9 --macs 0.11

For 3,755 classes with random weights, which decide nothing about speed; `benchmarks.stages` measures what accuracy is
left. One image at a time on one thread of ONNX Runtime, networks in turns. Each network is a line of
``benchmarks/results/character_speed.jsonl``; `python -m benchmarks.tables` makes the table of docs/tasks/characters.md.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path

import torch

import students
from benchmarks import _quartiles, _results
from benchmarks._command import command, described
from benchmarks._jobs import say
from benchmarks._page import measured_here
from benchmarks._results import RESULTS, Row, append, read
from benchmarks.stages import race, runnable
from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress import hook
from distill.data.info import DataInfo
from distill.models import cost
from distill.models.surgery import deployable
from distill.tasks.classification import Classification

FILE = RESULTS / "character_speed.jsonl"
IDENTITY = ("network", "macs_left", "layers", "hooks")
CLASSES = 3755


def networks(name: str, samples: list[Batch], macs: float, layers: list[str] | None) -> dict[str, Artifact]:
    """The dense network and what hooks make of it."""
    torch.manual_seed(0)
    dense = Artifact(getattr(students, name)(num_classes=CLASSES).eval(), network={"name": name})
    low_rank = hook.find("svd")(dense, lambda _: 0.0, samples, max_macs=macs, aim="speed", layers=layers)
    made = {"dense": dense, "svd": low_rank}
    return made | {f"{name}, int8": hook.find("int8")(one, samples, lambda _: 0.0) for name, one in made.items()}


def measure(name: str, macs: float, layers: list[str] | None) -> list[Row]:
    """One row for each network: all are timed in turns."""
    size = inspect.signature(getattr(students, name)).parameters["input_size"].default
    samples = [Batch(torch.randn(32, 1, size, size), torch.zeros(32), torch.arange(32))]
    task = Classification(DataInfo(1, (size, size), (0.5,), (0.5,), tuple(map(str, range(CLASSES)))))
    artifacts = networks(name, samples, macs, layers)
    runs = {hooks: runnable(artifact, samples, task) for hooks, artifact in artifacts.items()}
    times = race(runs, samples[0].inputs, next(iter(runs)), batches=(1,))
    rows: list[Row] = []
    for hooks, artifact in artifacts.items():
        model = deployable(artifact.model)
        counts = {"params": cost.params(model), "macs": cost.macs(model, samples[0].inputs)}
        speed = {key: times[hooks][key]["batch1"] for key in ("milliseconds", "quartiles_ms", "times_as_fast")}
        rows.append({"hooks": hooks, **counts, **speed, "waited": times[hooks]["waited"], "measured": measured_here()})
    return rows


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """A table for each network with all layers of low rank, by its name on pages."""
    names = dict.fromkeys((row["network"], row["macs_left"]) for row in rows if row["layers"] is None)
    found = {}
    for name, left in names:
        some = [row for row in rows if (row["network"], row["macs_left"], row["layers"]) == (name, left, None)]
        dense = next(row for row in some if row["hooks"] == "dense")
        lines = [
            [
                *(row["hooks"], f"{row['params']:,}", f"{row['macs']:,}", f"{dense['macs'] / row['macs']:.1f}"),
                *(_milliseconds(row, dense), f"{row['times_as_fast']:.2f}"),
            ]
            for row in some
        ]
        head = ["network", "parameters", "MACs", "times fewer", "ms, batch 1", "times as fast"]
        text = _results.table(head, lines)
        below = f"{_results.measured(some)}{_quartiles.note(some, text, dense['hooks'])}"
        found[f"character_speed {name} {left:g}"] = f"{text}\n\n{below}"
    return found


def _milliseconds(row: Row, dense: Row) -> str:
    text = f"{row['milliseconds']:.3f}"
    return text if row is dense else _quartiles.marked(text, row.get("quartiles_ms"), dense.get("quartiles_ms"))


@command
def main() -> None:
    """Compress and time, unless that is done."""
    parser = described(__doc__)
    parser.add_argument("network", choices=["character_cnn", "hccr_cnn9"])
    parser.add_argument("--macs", type=float, default=0.25, help="what low rank leaves, as a part of all")
    parser.add_argument("--layers", nargs="+", help="globs of the layers that become low rank; all without any")
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_args()
    named = {"network": options.network, "macs_left": options.macs, "layers": options.layers}
    known = [row for row in read(options.results, named) if all(row[key] == value for key, value in named.items())]
    if not known:
        rows = measure(options.network, options.macs, options.layers)
        append(options.results, *({**named, **row} for row in rows))
        for row in rows:
            say(f"{row['hooks']}: {row['milliseconds']:.3f} ms, {row['times_as_fast']:.2f} times as fast")


if __name__ == "__main__":
    main()
