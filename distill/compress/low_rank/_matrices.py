"""A weight as a matrix cut to low rank: two plain layers in place of one."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.utils import skip_init

from distill.compress._decompositions import eigh, svd
from distill.compress._layers import Layer
from distill.compress.low_rank._allocation import Aim, Option
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer

Scheme = Literal["spatial", "channel"]
AXES = {"spatial": ((True, False), (False, True)), "channel": ((True, True), (False, False))}
"""Whether height and width belong to the first and to the second layer."""


class Cut:
    """The best pairs of layers that a layer may become, by rank, for weighted errors.

    Eckart & Young, for |R (W - A B) C|: the cut of R W C has the least error; R^-1 and C^-1 undo the weighting.
    """

    def __init__(self, traced: TracedLayer, error_weights: ErrorWeights, scheme: Scheme) -> None:
        self.traced, self.scheme = traced, scheme
        kept = AXES[scheme][0] if isinstance(traced.layer, nn.Conv2d) else (False, False)
        self.rows = error_weights.rows(traced, kept)
        matrix = unfold(traced.layer.weight.detach(), scheme).double()
        self.shape = matrix.shape
        self.columns = error_weights.columns(traced, matrix.shape[1] // len(traced.layer.weight))
        self.u, self.s, self.vh = svd(self.rows.root @ matrix @ self.columns.root)

    @property
    def importance(self) -> float:
        return float(self.s.square().sum())

    @cached_property
    def errors(self) -> list[float]:
        """Of the cut to each rank from 0, squared, as a part of the whole."""
        energy = self.s.square()
        left_out = [*energy.flip(0).cumsum(0).flip(0).tolist(), 0.0]
        # What is below float32's precision is not there.
        return [left / left_out[0] if left > 1e-13 * left_out[0] else 0.0 for left in left_out]

    def options(self, _: Aim) -> Sequence[Option]:
        """Every rank from 1 on at which two layers are smaller, up to the weight's own."""
        size = sum(self.shape)
        largest = min((self.shape.numel() - 1) // size, len(self.s))
        first, second = self._positions()
        return [
            Option(
                {"ranks": [rank], "scheme": self.scheme},
                rank * size,
                rank * (self.shape[0] * first + self.shape[1] * second),
                self.errors[rank],
            )
            for rank in range(1, largest + 1)
            if rank == 1 or self.errors[rank - 1] > 0
        ]

    def fill(self, module: nn.Module, spec: Mapping[str, Any]) -> None:
        (rank,) = spec["ranks"]
        root = self.s[:rank].sqrt()
        first = self.rows.inverse @ self.u[:, :rank] * root
        second = root[:, None] * self.vh[:rank] @ self.columns.inverse
        balance = (second.norm(dim=1) / first.norm(dim=0).clamp(min=1e-300)).sqrt()  # both halves scaled alike
        parameters = dict(module.named_parameters())
        one, two = parameters["0.weight"], parameters["1.weight"]
        one.copy_((first * balance).T.reshape(one.shape))
        second = second / balance[:, None].clamp(min=1e-300)
        two.copy_(second.unflatten(1, (len(two), -1)).transpose(0, 1).reshape(two.shape))

    def _positions(self) -> tuple[int, int]:
        """How often one image uses each value of the two layers."""
        traced = self.traced
        if isinstance(traced.layer, nn.Linear) or self.scheme == "channel":
            return traced.positions, traced.positions
        return traced.outputs[1] * traced.inputs[2], traced.positions  # the first half strides along the height alone


def pair(layer: Layer, spec: Mapping[str, Any]) -> nn.Sequential:
    """Two layers that compute what a layer of low rank does, yet without its values."""
    (rank,), scheme = spec["ranks"], spec["scheme"]
    ends = (layer.in_channels, layer.out_channels) if isinstance(layer, nn.Conv2d) else layer.weight.shape[::-1]
    sizes = ((ends[0], rank, False), (rank, ends[1], layer.bias is not None))
    return nn.Sequential(*(part(layer, *size, axes) for size, axes in zip(sizes, AXES[scheme], strict=True)))


def part(layer: Layer, inputs: int, outputs: int, bias: bool, axes: tuple[bool, bool], groups: int = 1) -> nn.Module:
    """A layer that does what ``layer`` does along the height, the width, both or neither, without values."""
    like: dict[str, Any] = {"bias": bias, "device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        return skip_init(nn.Linear, inputs, outputs, **like)

    def along(values: tuple[int, ...], otherwise: int) -> tuple[int, ...]:
        return tuple(value if has else otherwise for value, has in zip(values, axes, strict=True))

    return skip_init(
        nn.Conv2d,
        inputs,
        outputs,
        along(layer.kernel_size, 1),
        stride=along(layer.stride, 1),
        dilation=along(layer.dilation, 1),
        padding=layer.padding if isinstance(layer.padding, str) else along(layer.padding, 0),
        padding_mode=layer.padding_mode,
        groups=groups,
        **like,
    )


def unfold(weight: Tensor, scheme: Scheme) -> Tensor:
    """The weight as the matrix that is cut: rows belong to the first half, columns to the second."""
    if weight.dim() == 2:
        return weight.T
    if scheme == "spatial":
        return weight.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)  # (in * height, out * width)
    return weight.flatten(1).T  # (in * height * width, out)


def left_singular(matrix: Tensor) -> Tensor:
    """The left singular vectors, largest first; only they are computed, however wide the matrix."""
    return eigh(matrix @ matrix.T)[1].flip(1)
