"""Kim et al.: Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications.
arXiv:1511.06530, section 3.1: Tucker-2 on the channels.

A k x k convolution becomes a 1 x 1 one to few channels, a k x k one among few, and a 1 x 1 one back. Departs from the
paper: ranks follow from one number for the network, not from variational Bayes; errors are weighted by second
moments. A 1 x 1 convolution and a linear layer are matrices, whose Tucker form is a product of two.
"""

from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn

from distill.compress import hook
from distill.compress._decompositions import eigh
from distill.compress._layers import Layer
from distill.compress.low_rank._allocation import Aim, Option
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer
from distill.compress.low_rank._factorise import Factors, factorisation, rebuild
from distill.compress.low_rank._matrices import Cut, pair, part
from distill.registry import surgery

GRID = 16
"""Ranks tried of each mode."""


def build(layer: Layer, spec: Mapping[str, Any]) -> nn.Module:
    """Layers of the given ranks, without values."""
    if len(spec["ranks"]) == 1:
        return pair(layer, spec)
    assert isinstance(layer, nn.Conv2d)
    first, last = spec["ranks"]
    return nn.Sequential(
        part(layer, layer.in_channels, first, False, (False, False)),
        part(layer, first, last, False, (True, True)),
        part(layer, last, layer.out_channels, layer.bias is not None, (False, False)),
    )


@hook("tucker")
@factorisation(build)
def tucker(traced: TracedLayer, error_weights: ErrorWeights) -> Factors:
    """Convolutions between fewer channels; a layer that would not get smaller, or faster, stays as it is.

    Settings: see `distill.compress.low_rank._factorise.factorisation`. The error that ``max_error`` bounds is not
    computed but bounded itself: what both cuts of the higher-order singular value decomposition leave out, in sum.
    """
    return Tucker2(traced, error_weights) if traced.kernel != (1, 1) else Cut(traced, error_weights, "channel")


@surgery("tucker")
def apply(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Put layers of the planned ranks in place of each one."""
    return rebuild(model, layers, build)


class Tucker2:
    """De Lathauwer, De Moor & Vandewalle: A multilinear singular value decomposition, 2000, of both channel modes."""

    def __init__(self, traced: TracedLayer, error_weights: ErrorWeights) -> None:
        self.traced = traced
        self.rows, self.columns = error_weights.rows(traced, (False, False)), error_weights.columns(traced)
        weight = traced.layer.weight.detach().double()
        self.weight = torch.einsum("oihw,ia,ob->bahw", weight, self.rows.root, self.columns.root)
        self.inputs, self.outputs = _modes(self.weight.transpose(0, 1)), _modes(self.weight)

    @property
    def importance(self) -> float:
        return float(self.weight.square().sum())

    def options(self, _: Aim) -> Sequence[Option]:
        """A grid of both ranks."""
        (u, lost_in), (v, lost_out) = self.inputs, self.outputs
        return [self._option(a, b, lost_in[a] + lost_out[b]) for a in _grid(len(u)) for b in _grid(len(v))]

    def fill(self, module: nn.Module, spec: Mapping[str, Any]) -> None:
        first, last = spec["ranks"]
        u, v = self.inputs[0][:, :first], self.outputs[0][:, :last]
        core = torch.einsum("bahw,ai,bo->oihw", self.weight, u, v)
        factors = ((u.T @ self.rows.inverse)[:, :, None, None], core, (self.columns.inverse @ v)[:, :, None, None])
        norms = [float(factor.norm()) for factor in factors]
        shared = prod(norms) ** (1 / len(norms))  # error weights scale factors apart: steps of training would diverge
        weights = dict(module.named_parameters())
        for number, (factor, norm) in enumerate(zip(factors, norms, strict=True)):
            weights[f"{number}.weight"].copy_(factor * (shared / norm if norm else 1.0))

    def _option(self, first: int, last: int, error: float) -> Option:
        traced, layer = self.traced, self.traced.layer
        sizes = (
            first * layer.weight.shape[1],
            first * last * traced.kernel[0] * traced.kernel[1],
            last * len(layer.weight),
        )
        before = traced.inputs[1] * traced.inputs[2]
        macs = sizes[0] * before + (sizes[1] + sizes[2]) * traced.positions
        return Option({"ranks": [first, last]}, sum(sizes), macs, error)


def _modes(weight: Tensor) -> tuple[Tensor, list[float]]:
    """The singular vectors of the first mode, and what a cut to each rank leaves out of the squared whole."""
    matrix = weight.flatten(1)
    values, vectors = eigh(matrix @ matrix.T)
    energy = values.flip(0).clamp(min=0)
    left_out = energy.flip(0).cumsum(0).flip(0) / energy.sum().clamp(min=1e-300)
    return vectors.flip(1), [*left_out.tolist(), 0.0]


def _grid(size: int) -> list[int]:
    """Ranks from 1 to all, evenly, in eights where there are enough: runtimes like those."""
    step = 8 if size >= 8 * GRID else ceil(size / GRID)
    ranks = {*range(step, size + 1, ceil(size / step / GRID) * step), size}
    return sorted(ranks | {1})
