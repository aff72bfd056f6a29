"""Sparse and blocked convolutions beside PyTorch's own (oneDNN): milliseconds, threads, bytes, and what the model says.

    python -m benchmarks.kernels
    python -m benchmarks.kernels --repeats 5      # a look, in seconds

The 3x3 layers of ResNet-18 and the 3x3 and 5x5 ones of AlexNet, one image. All ways to compute a layer take turns, and
the median of each counts. Weights are random, and zero at random places. Prints Markdown tables, and the numbers of
this machine as hook ``guided_sparsity`` takes them. Takes about a minute on an idle machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from distill.kernels import BlockedConv2d, Geometry, Machine, SparseConv2d, measured, pack
from distill.kernels._native import library
from distill.kernels.performance import Work

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


Times = Mapping[str, Mapping[str | float, float]]
"""Of each layer, the milliseconds of each way."""


def wins_below(times: Mapping[str | float, float]) -> str:
    """The density at which sparse and dense take as long, on the line between the two measured ones around it."""
    gaps = [(density, times[density] - times["dense"]) for density in DENSITIES]
    if gaps[0][1] > 0:
        return "never"
    for (low, before), (high, after) in pairwise(gaps):
        if after > 0:
            return f"{100 * (low + (high - low) * before / (before - after)):.0f} %"
    return f"above {100 * DENSITIES[-1]:.0f} %"


def speed_ups(layers: Mapping[str, Layer], times: Times, machine: Machine) -> Iterator[str]:
    """How many times faster than dense the sparse way is, measured (model)."""
    head = ["layer", "dense, ms", *(f"{100 * density:.0f} %" for density in DENSITIES), "sparse wins below", "model"]
    yield from heading(head)
    for name, layer in layers.items():
        work = Work.of(layer.geometry, layer.size, layer.size)
        dense = machine.dense_seconds(work)
        cells = [
            f"{times[name]['dense'] / times[name][density]:.1f} ({dense / machine.sparse_seconds(work, density):.1f})"
            for density in DENSITIES
        ]
        most = f"{100 * machine.useful(work)[1]:.0f} %"
        yield row([name, f"{times[name]['dense']:.2f}", *cells, wins_below(times[name]), most])


def workspaces(layers: Mapping[str, Layer], times: Times) -> Iterator[str]:
    """The blocked way's speed, and everybody's bytes."""
    yield from heading(
        ["layer", "dense, ms", "blocked, ms", "dense / blocked", "blocked, bytes", "sparse, bytes", "im2col, bytes"]
    )
    for name, layer in layers.items():
        dense, blocked = times[name]["dense"], times[name]["blocked"]
        im2col = layer.geometry.im2col_bytes(layer.size, layer.size)
        yield row(
            [
                name,
                f"{dense:.2f}",
                f"{blocked:.2f}",
                f"{dense / blocked:.2f}",
                "0",
                f"{layer.workspace:,}",
                f"{im2col:,}",
            ]
        )


def scaling(one: Times, more: Times, threads: int) -> Iterator[str]:
    """How many times faster each way is on more threads than on the first number of them."""
    ways = ("dense", "blocked", 0.1)
    yield from heading(["layer", *(f"{way} on {threads}" for way in ("dense", "blocked", "sparse 10 %"))])
    for name in one:
        yield row([name, *(f"{one[name][way] / more[name][way]:.2f}" for way in ways)])


def heading(cells: Sequence[str]) -> Iterator[str]:
    yield row(cells)
    yield "|---" * len(cells) + "|"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    if library() is None:
        parser.error("there is no C++ compiler here, and without one there is nothing to measure")
    torch.manual_seed(0)
    layers = {name: Layer.of(*sizes) for name, sizes in LAYERS.items()}
    by_threads: dict[int, Times] = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        machine = measured(seconds=0.5)
        times = by_threads[threads] = {name: layer.times(options.repeats) for name, layer in layers.items()}
        print(f"\n{threads} threads: alpha: {machine.alpha:.2f}, beta: {machine.beta:.1f}, ", end="")
        print(f"flops: {machine.flops:.3g}, bandwidth: {machine.bandwidth:.3g}\n")
        print("\n".join([*speed_ups(layers, times, machine), "", *workspaces(layers, times)]), flush=True)
    first, *others = options.threads
    for threads in others:
        print("\n" + "\n".join(scaling(by_threads[first], by_threads[threads], threads)))


if __name__ == "__main__":
    main()
