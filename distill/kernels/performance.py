"""Park et al.: Faster CNNs with Direct Sparse Convolutions and Guided Pruning. arXiv:1608.01409, section 2.2: the time
that a convolution takes, dense and sparse, from six numbers; so, which layers are worth pruning, and how far.

Dense it takes C / F, sparse the longer of computing, alpha x C / F, and of moving, (S_A + beta x S_W) / B: density x,
C operations, F operations per second, S_A and S_W bytes of activations and weights, B bytes per second.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.kernels.geometry import FLOAT, Geometry
from distill.kernels.sparse_conv import SparseConv2d


class Work(NamedTuple):
    """What a layer has to do for one image."""

    operations: int
    """Two to a multiply-accumulate."""
    activations: int
    """Bytes of its input and output."""
    weights: int
    """Bytes of its dense weight."""

    @classmethod
    def of(cls, geometry: Geometry, height: int, width: int) -> "Work":
        """That of a layer on images of that size."""
        above, across = geometry.output_size(height, width)
        values = geometry.in_channels * height * width + geometry.out_channels * above * across
        return cls(2 * geometry.macs(height, width), FLOAT * values, FLOAT * geometry.weights)


@dataclass(frozen=True)
class Machine:
    """How fast a processor computes and reads. Without `measured`: about one core of a server of 2023."""

    flops: float = 100e9
    """Operations per second of a dense convolution."""
    bandwidth: float = 20e9
    """Bytes per second from memory."""
    alpha: float = 2.0
    """How much longer an operation takes in the sparse kernel; the paper has 3 for Xeon."""
    beta: float = 2.0
    """Bytes of a non-zero over those of a dense weight: it has an index beside its value."""

    def dense_seconds(self, work: Work) -> float:
        """The model's time of a dense layer."""
        return work.operations / self.flops

    def sparse_seconds(self, work: Work, density: float) -> float:
        """The model's time of a layer whose weights have that part of non-zeros."""
        computing = self.alpha * density * self.dense_seconds(work)
        return max(computing, (work.activations + self.beta * density * work.weights) / self.bandwidth)

    def useful(self, work: Work) -> tuple[float, float]:
        """Densities, least and most, between which zeros make a layer faster.

        Above the most the dense kernel is faster; 0: always. Below the least only reading takes time, and more zeros
        gain next to nothing.
        """
        dense = self.bandwidth * self.dense_seconds(work)
        most = max(0.0, min(1 / self.alpha, (dense - work.activations) / (self.beta * work.weights)))
        rise = self.alpha * dense - self.beta * work.weights
        least = work.activations / rise if rise > 0 else inf
        return min(least, most), most


def measured(seconds: float = 0.1) -> Machine:
    """This machine, on as many threads as PyTorch uses: a common layer is timed dense and at two densities, and a copy.

    Args:
        seconds: for each of the four; the fastest run counts, because others were disturbed.
    """
    random = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(128, 128, 3, padding=1, bias=False)
    images = torch.randn(1, 128, 28, 28, generator=random)
    order = torch.rand(conv.weight.shape, generator=random)
    densities = (0.1, 0.3)
    with torch.no_grad():
        dense = fastest(partial(conv, images), seconds)
        sparse: list[float] = []
        for density in reversed(densities):
            conv.weight.masked_fill_(order > density, 0)
            sparse.insert(0, fastest(partial(SparseConv2d.from_dense(conv), images), seconds))
        source, target = torch.ones(2, 1 << 24)
        copying = fastest(lambda: target.copy_(source), seconds)
    slope = (sparse[1] - sparse[0]) / (densities[1] - densities[0])
    operations = Work.of(Geometry.of(conv), 28, 28).operations
    return Machine(operations / dense, 2 * source.nbytes / copying, slope / dense)


def fastest(run: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest of as many runs as fit into ``seconds``, two at least; the first is not counted."""
    run()
    best, end = inf, time.perf_counter() + seconds
    while best == inf or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def works(model: nn.Module, images: Tensor) -> dict[str, Work]:
    """What every convolution that `SparseConv2d` can take has to do for one image, by module path.

    Args:
        model: runs once, on the first image; it is in eval mode.
        images: (batch, channels, height, width).
    """
    found: dict[str, Work] = {}

    def look(path: str, geometry: Geometry, _: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        images = (*given, *named.values())[0]
        found[path] = Work.of(geometry, *images.shape[-2:])

    handles = []
    for path, layer in model.named_modules():
        if type(layer) is nn.Conv2d and (geometry := _geometry(layer)):
            handles.append(layer.register_forward_pre_hook(partial(look, path, geometry), with_kwargs=True))
    try:
        with torch.no_grad():
            model(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return found


def sparse(model: nn.Module, images: Tensor, machine: Machine | None = None) -> nn.Module:
    """A copy for inference on the CPU: its pruned convolutions are sparse wherever the model says that this is faster.

    Its outputs differ from the model's by rounding alone. ``distill.models.surgery.deployable`` makes it dense again.

    Args:
        model: as `distill.load` gives it, for example; in eval mode.
        images: (batch, channels, height, width), of the size that it is going to see.
        machine: None: this one, measured in half a second.
    """
    machine = machine or measured()
    network = copy.deepcopy(model)
    new: dict[nn.Module, SparseConv2d] = {}
    for path, work in works(network, images).items():
        layer = network.get_submodule(path)
        assert isinstance(layer, nn.Conv2d)
        density = float((layer.weight != 0).float().mean())
        if machine.sparse_seconds(work, density) < machine.dense_seconds(work):
            new[layer] = SparseConv2d.from_dense(layer)
    for path, layer in list(network.named_modules(remove_duplicate=False)):
        if layer in new:
            network.set_submodule(path, new[layer])
    return network


def _geometry(layer: nn.Conv2d) -> Geometry | None:
    try:
        return Geometry.of(layer)
    except ValueError:  # the kernel pads with zeros, and alike on all sides
        return None
