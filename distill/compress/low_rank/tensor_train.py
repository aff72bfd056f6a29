"""Novikov et al.: Tensorizing Neural Networks. arXiv:1509.06569; Garipov et al.: Ultimate tensorization: compressing
convolutional and FC layers alike. arXiv:1611.03214.

Departs from the papers: modes are ordered inputs first (see `_trains`), so that a layer runs as two or three plain ones
and may be faster than the dense one, not only smaller; and ranks and shapes follow from one number.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from distill.compress import hook
from distill.compress._layers import Layer
from distill.compress.low_rank._allocation import Aim, Option
from distill.compress.low_rank._composed import Composed, PlainLayer
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer
from distill.compress.low_rank._factorise import factorisation, rebuild
from distill.compress.low_rank._matrices import left_singular
from distill.compress.low_rank._trains import Shape, Trains, contract, decompose, dense
from distill.registry import surgery

LEVELS = 24
"""Error bounds tried of each layer."""


class TensorTrain(Composed):
    """A linear layer or a convolution that keeps the cores of a train and runs as plain layers.

    ``core0`` is kept with its axes reversed: every core then begins with a bond, along which its values differ in size.

    Args:
        layer: what it takes the place of.
        spec: ``inputs``, ``kernel``, ``outputs`` and ``ranks`` of a `Shape`, and whether it runs ``dense``.
    """

    def __init__(self, layer: Layer, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape, self.runs_dense = shape_of(spec), bool(spec["dense"])
        self.geometry: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            self.kernel_size = layer.kernel_size
            self.geometry = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        modes, ranks = self.shape.modes, (1, *self.shape.ranks, 1)
        for position, (before, mode, after) in enumerate(zip(ranks, modes, ranks[1:], strict=False)):
            sizes = (before, mode, after) if position else (after, mode, before)
            self.register_parameter(f"core{position}", nn.Parameter(layer.weight.new_empty(sizes)))
        self.bias = layer.bias

    @property
    def cores(self) -> list[Tensor]:
        """From the first input mode to the last output mode, each (rank, mode, rank)."""
        first, *others = (getattr(self, f"core{k}") for k in range(len(self.shape.ranks) + 1))
        return [first.transpose(0, 2), *others]

    def weights(self) -> list[Tensor]:
        """Of the layers that it runs as: one, or as many as the train is cut into."""
        layers = contract(self.cores, self.shape)
        if self.runs_dense:
            return [self._kernel(dense(layers).permute(2, 0, 1))]
        first, *between, second = layers
        ends = (first, second) if self.geometry is None else (first[:, :, None, None], second[:, :, None, None])
        return [ends[0], *(self._kernel(core.permute(2, 0, 1)) for core in between), ends[1]]

    def _kernel(self, weight: Tensor) -> Tensor:
        """(outputs, inputs, kernel) as the weight of a layer."""
        return weight.squeeze(2) if self.geometry is None else weight.unflatten(2, self.kernel_size)

    def plain_layers(self) -> Iterator[PlainLayer]:
        weights = self.weights()
        moves = 1 if len(weights) == 3 else 0  # the one with the kernel, or the first
        for position, weight in enumerate(weights):
            geometry = self.geometry if position == moves or self.geometry is None else {}
            yield PlainLayer(weight, self.bias if position == len(weights) - 1 else None, geometry)


@hook("tensor_train")
@factorisation(TensorTrain)
def tensor_train(traced: TracedLayer, error_weights: ErrorWeights) -> "LayerTrains | str":
    """Convolutions and linear layers as tensor trains of two to five cores; a layer that would not get smaller, or
    faster, stays as it is.

    Settings: see `distill.compress.low_rank._factorise.factorisation`.
    """
    mode = traced.layer.padding_mode if isinstance(traced.layer, nn.Conv2d) else "zeros"
    return LayerTrains(traced, error_weights) if mode == "zeros" else f"{mode} padding"


@surgery("tensor_train")
def apply(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Put layers of the planned ranks in place of each one."""
    return rebuild(model, layers, TensorTrain)


def shape_of(spec: Mapping[str, Any]) -> Shape:
    """The train that an entry of a plan describes."""
    return Shape(tuple(spec["inputs"]), spec["kernel"], tuple(spec["outputs"]), tuple(spec["ranks"]))


class LayerTrains:
    """All trains that a layer may become, for weighted errors."""

    def __init__(self, traced: TracedLayer, error_weights: ErrorWeights) -> None:
        self.traced = traced
        self.rows, self.columns = error_weights.rows(traced, (False, False)), error_weights.columns(traced)
        weight = traced.layer.weight.detach().double()
        self.weight = weight.flatten(2).permute(1, 2, 0) if weight.dim() > 2 else weight.T[:, None]
        self.weighted = self._weighted(self.weight)

    @property
    def importance(self) -> float:
        return float(self.weighted.square().sum())

    def options(self, aim: Aim) -> Sequence[Option]:
        """The smallest train of each of some error bounds, and the error it really has."""
        trains = Trains(self.weight, self.weighted)
        bounds = [level / LEVELS for level in range(1, LEVELS)]
        shapes = dict.fromkeys(trains.smallest(bound, fast=aim == "speed") for bound in bounds)
        return [self._option(shape) for shape in shapes]

    def fill(self, module: nn.Module, spec: Mapping[str, Any]) -> None:
        assert isinstance(module, TensorTrain)
        for core, values in zip(module.cores, self._cores(shape_of(spec)), strict=True):
            core.copy_(values)

    def _weighted(self, weight: Tensor) -> Tensor:
        return torch.einsum("ai,iko,ob->akb", self.rows.root, weight, self.columns.root)

    def _cores(self, shape: Shape) -> list[Tensor]:
        """The weight cut with weighted errors where layers are cut; further cuts there lose nothing."""
        first, *_, last = (*shape.widths, shape.widths[-1])
        u, v = self._u[:, :first], self._v[:, :last]
        core = torch.einsum("ir,iko,os->rks", u, self.weighted, v)
        weight = torch.einsum("ir,rks,os->iko", self.rows.inverse @ u, core, self.columns.inverse @ v)
        return decompose(weight, shape)

    @cached_property
    def _u(self) -> Tensor:
        """Directions of the inputs, those with the largest error weights first."""
        return left_singular(self.weighted.flatten(1))

    @cached_property
    def _v(self) -> Tensor:
        return left_singular(self.weighted.flatten(0, 1).T)

    def _option(self, shape: Shape) -> Option:
        rest = self._weighted(self.weight - dense(contract(self._cores(shape), shape)))
        error = float(rest.square().sum() / self.weighted.square().sum().clamp(min=1e-300))
        macs = self._macs(shape)
        runs_dense = macs >= self.traced.macs
        plan = {"inputs": list(shape.inputs), "kernel": shape.kernel, "outputs": list(shape.outputs)}
        spec = {**plan, "ranks": list(shape.ranks), "dense": runs_dense}
        return Option(spec, shape.size, min(macs, self.traced.macs), error, widths=shape.widths)

    def _macs(self, shape: Shape) -> int:
        """Of the layers that the train is cut into."""
        inputs, kernel, outputs = self.weight.shape
        widths, positions = shape.widths, self.traced.positions
        if kernel == 1:
            return widths[0] * (inputs + outputs) * positions
        before = torch.Size(self.traced.inputs[1:]).numel()
        return widths[0] * inputs * before + (widths[0] * kernel + outputs) * widths[1] * positions
