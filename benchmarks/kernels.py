"""Sparse and blocked convolutions beside PyTorch's own (oneDNN): milliseconds, threads, bytes, and what the model says.

    python -m benchmarks.kernels
    python -m benchmarks.kernels --repeats 5 --results /tmp/kernels.jsonl     # a look, in seconds

The 3x3 layers of ResNet-18 and the 3x3 and 5x5 ones of AlexNet, one image. All ways to compute a layer take turns, and
the median of each counts. Weights are random, and zero at random places. Takes about a minute on an idle machine. Each
layer on so many threads, and the constants of this machine as hook ``guided_sparsity`` takes them, are a line of
``benchmarks/results/kernels.jsonl``, and what is there is not measured again (``--results /tmp/FILE`` for a look);
`python -m benchmarks.tables` makes the tables of docs/benchmarks/kernels.md.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from benchmarks import _results
from benchmarks._command import command, described
from benchmarks._jobs import say
from benchmarks._results import RESULTS, Row, kept
from distill.cli.arguments import positive
from distill.kernels import BlockedConv2d, Geometry, Machine, SparseConv2d, measured, pack
from distill.kernels._native import library
from distill.kernels.performance import Work

FILE = RESULTS / "kernels.jsonl"
IDENTITY = ("layer", "threads")
MACHINE = ""
"""In place of a layer's name: the constants of the machine."""
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
LAYERS = {
    "ResNet-18 layer1": (64, 64, 3, 1, 56),
    "ResNet-18 layer2.0": (64, 128, 3, 2, 56),
    "ResNet-18 layer2": (128, 128, 3, 1, 28),
    "ResNet-18 layer3": (256, 256, 3, 1, 14),
    "ResNet-18 layer4": (512, 512, 3, 1, 7),
    "AlexNet conv2": (64, 192, 5, 1, 27),
    "AlexNet conv3": (192, 384, 3, 1, 13),
    "AlexNet conv4": (384, 256, 3, 1, 13),
    "AlexNet conv5": (256, 256, 3, 1, 13),
}
"""Input channels, output channels, kernel, stride, height and width of the input."""


@dataclass(frozen=True)
class Layer:
    """One layer, every way to compute it, and what each needs."""

    size: int
    geometry: Geometry
    ways: Mapping[str | float, Callable[[], object]]
    """``dense``, ``blocked``, and for each density the sparse way."""
    workspace: int
    """Bytes that the sparse way needs beside its output."""

    @classmethod
    def of(cls, inputs: int, outputs: int, kernel: int, stride: int, size: int) -> "Layer":
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        images = torch.randn(1, inputs, size, size)
        ways: dict[str | float, Callable[[], object]] = {
            "dense": partial(conv, images),
            "blocked": partial(BlockedConv2d.from_dense(conv), pack(images)),
        }
        thin = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        for density in DENSITIES:
            thin.weight.copy_(conv.weight * (torch.rand_like(conv.weight) < density))
            sparse = SparseConv2d.from_dense(thin)
            ways[density] = partial(sparse, images)
        return cls(size, Geometry.of(conv), ways, sparse.workspace_bytes(size, size))

    def times(self, repeats: int) -> dict[str | float, float]:
        """Median milliseconds of each way."""
        seconds: dict[str | float, list[float]] = {way: [] for way in self.ways}
        for turn in range(repeats + 1):
            for way, run in self.ways.items():
                start = time.perf_counter()
                run()
                if turn:
                    seconds[way].append(time.perf_counter() - start)
        return {way: 1000 * statistics.median(values) for way, values in seconds.items()}


def wins_below(times: Mapping[str | float, float]) -> str:
    """The density at which sparse and dense take as long, on the line between the two measured ones around it."""
    gaps = [(density, times[density] - times["dense"]) for density in DENSITIES]
    if gaps[0][1] > 0:
        return "never"
    for (low, before), (high, after) in pairwise(gaps):
        if after > 0:
            return f"{100 * (low + (high - low) * before / (before - after)):.0f} %"
    return f"above {100 * DENSITIES[-1]:.0f} %"


def measure(sizes: tuple[int, int, int, int, int], machine: Machine, repeats: int) -> Row:
    """One layer: milliseconds, and how many times as fast as dense each way is, and by the model the sparse one."""
    layer = Layer.of(*sizes)
    times = layer.times(repeats)
    work = Work.of(layer.geometry, layer.size, layer.size)
    dense = machine.dense_seconds(work)
    return {
        "milliseconds": {str(way): took for way, took in times.items()},
        "times_as_fast": {str(way): times["dense"] / times[way] for way in ("blocked", *DENSITIES)},
        "model": {str(density): dense / machine.sparse_seconds(work, density) for density in DENSITIES},
        "wins_below": wins_below(times),
        "useful": machine.useful(work)[1],
        "workspace_bytes": layer.workspace,
        "im2col_bytes": layer.geometry.im2col_bytes(layer.size, layer.size),
    }


def constants(machine: Machine) -> Row:
    """Of the performance model."""
    return {name: getattr(machine, name) for name in ("alpha", "beta", "flops", "bandwidth")}


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Speed and bytes for each number of threads, and what more threads bring."""
    threads = sorted({row["threads"] for row in rows})
    layers = {
        number: [row for row in rows if row["threads"] == number and row["layer"] != MACHINE] for number in threads
    }
    machines = {row["threads"]: row for row in rows if row["layer"] == MACHINE}
    found = {
        f"kernels {number}": f"{_said(machines[number])}\n\n{speed_ups(some)}\n\n{workspaces(some)}"
        for number, some in layers.items()
        if number in machines
    }
    first, *others = threads or [0]
    return found | {f"kernels {first} to {number}": scaling(layers[first], layers[number]) for number in others}


def _said(machine: Row) -> str:
    numbers = f"alpha: {machine['alpha']:.2f}, beta: {machine['beta']:.1f}, flops: {machine['flops']:.3g}"
    return f"{machine['threads']} threads: {numbers}, bandwidth: {machine['bandwidth']:.3g}; {machine['measured']}"


def speed_ups(rows: Sequence[Row]) -> str:
    """How many times as fast as dense the sparse way is, measured (model)."""
    densities = [f"{100 * density:.0f} %" for density in DENSITIES]
    lines = []
    for row in rows:
        cells = [f"{row['times_as_fast'][str(one)]:.1f} ({row['model'][str(one)]:.1f})" for one in DENSITIES]
        dense = f"{row['milliseconds']['dense']:.2f}"
        lines.append([row["layer"], dense, *cells, row["wins_below"], f"{100 * row['useful']:.0f} %"])
    return _results.table(["layer", "dense, ms", *densities, "sparse wins below", "model"], lines)


def workspaces(rows: Sequence[Row]) -> str:
    """The blocked way's speed, and the bytes of each way."""
    head = ["layer", "dense, ms", "blocked, ms", "dense / blocked", "blocked, bytes", "sparse, bytes", "im2col, bytes"]
    lines = []
    for row in rows:
        dense, blocked = row["milliseconds"]["dense"], row["milliseconds"]["blocked"]
        sizes = ["0", f"{row['workspace_bytes']:,}", f"{row['im2col_bytes']:,}"]
        lines.append([row["layer"], f"{dense:.2f}", f"{blocked:.2f}", f"{row['times_as_fast']['blocked']:.2f}", *sizes])
    return _results.table(head, lines)


def scaling(few: Sequence[Row], more: Sequence[Row]) -> str:
    """How many times as fast each way is on more threads."""
    before = {row["layer"]: row["milliseconds"] for row in few}
    number = more[0]["threads"]
    lines = []
    for row in (row for row in more if row["layer"] in before):
        ratios = row.get("scaling") or {
            way: before[row["layer"]][way] / row["milliseconds"][way] for way in ("dense", "blocked", "0.1")
        }
        lines.append([row["layer"], *(f"{ratio:.2f}" for ratio in ratios.values())])
    head = ["layer", *(f"{way} on {number}" for way in ("dense", "blocked", "sparse 10 %"))]
    return f"{_results.table(head, lines)}\n\n{_results.measured(more)}"


@torch.no_grad()
@command
def main() -> None:
    """Measure what is missing."""
    parser = described(__doc__)
    parser.add_argument("--repeats", type=positive, default=100)
    parser.add_argument("--threads", type=positive, nargs="+", default=[1, 2])
    parser.add_argument("--results", type=Path, default=FILE)
    options = parser.parse_args()
    if library() is None:
        parser.error("there is no C++ compiler here, and without one there is nothing to measure")
    torch.manual_seed(0)
    for threads in options.threads:
        torch.set_num_threads(threads)
        named = {"layer": MACHINE, "threads": threads}
        found = kept(options.results, named, lambda: constants(measured(seconds=0.5)))
        machine = Machine(**{name: found[name] for name in ("alpha", "beta", "flops", "bandwidth")})
        for layer, sizes in LAYERS.items():
            named = {"layer": layer, "threads": threads}
            row = kept(options.results, named, partial(measure, sizes, machine, options.repeats))
            say(f"{layer} on {threads}: sparse wins below {row['wins_below']}")


if __name__ == "__main__":
    main()
