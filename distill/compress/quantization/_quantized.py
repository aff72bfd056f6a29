"""The form of weights in few bits: integer codes, and a scale for each slice."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from distill.artifact.storage import need
from distill.compress._weights import slice_count, slices, unsliced
from distill.registry import form

Scale = Literal["max", "mse"]
CLIPS = [0.97**k for k in range(110)]
"""Parts of a slice's range tried for the least squared error; least squares does the rest."""


@form("quantized")
@dataclass(frozen=True, eq=False, kw_only=True)
class Quantized:
    """Krishnamoorthi: Quantizing deep convolutional networks. arXiv:1806.08342, section 2: integer codes with one
    scale, and perhaps one zero point, per slice. Zero is always exactly zero.

    Scales are bfloat16: a code times a scale is then exact in float32, the same on every machine.
    """

    codes: Tensor
    """int8, in the tensor's own shape: whole scales modulo 256, so that zero is 0 whatever its zero point is, which
    `encode` profits from. Fewer bits are a matter of `encode` too."""
    scales: Tensor
    """One per slice."""
    zeros: Tensor | None = None
    """uint8, how far each slice reaches below zero, in scales; without it, slices are symmetric about 0."""
    axis: int | None = None
    """Slices lie along this one; without it, the whole tensor is one."""
    group: int | None = None
    """So many values of a slice, in order, have a scale of their own; without it, all of them share one."""
    bits: int

    @classmethod
    def fit(
        cls,
        tensor: Tensor,
        bits: int,
        axis: int | None = 0,
        group: int | None = None,
        *,
        symmetric: bool = True,
        scale: Scale = "max",
    ) -> "Quantized":
        """Each value becomes the nearest that there is a code for.

        Args:
            tensor: what to fit.
            bits: of a code, 2 to 8; codes that are symmetric leave one of the 2**bits unused.
            axis: see the field.
            group: see the field.
            symmetric: whether slices do without zero points.
            scale: ``max`` clips no value; ``mse`` clips where that makes a slice's squared error smallest.
        """
        rows, ends = slices(tensor.float(), axis, group), _ends(bits, symmetric)
        grid = _spanning(rows, ends, 1.0) if scale == "max" else _least_error(rows, ends)
        zeros = None if symmetric else grid[1, :, 0]
        return cls(codes=tensor, scales=grid[0, :, 0], zeros=zeros, axis=axis, group=group, bits=bits)._on(grid, rows)

    def validate(self, shape: tuple[int, ...]) -> None:
        need(self.codes.dtype == torch.int8 and self.codes.shape == shape, "codes of another type or shape")
        need(2 <= self.bits <= 8, f"{self.bits} bits")
        need(self.axis is None or 0 <= self.axis < len(shape), f"slices along axis {self.axis}")
        need(self.group is None or self.group > 0, f"groups of {self.group}")
        count = (slice_count(shape, self.axis, self.group),)
        need(self.scales.dtype == torch.bfloat16 and self.scales.shape == count, "scales of another type or number")
        zeros = self.zeros is None or (self.zeros.dtype == torch.uint8 and self.zeros.shape == count)
        need(zeros, "zero points of another type or number")

    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes + (0 if self.zeros is None else self.zeros.nbytes)

    def decode(self) -> Tensor:
        return self.steps() * self.each(self.scales)

    def requantize(self, tensor: Tensor) -> "Quantized":
        """The nearest codes at scales that follow the size of each slice.

        Quick enough for every forward pass, and without effect on what was decoded: clipping and learned rounding stay.
        """
        rows, before = (slices(t, self.axis, self.group) for t in (tensor.float(), self.steps()))
        scales = _storable(rows.abs().sum(1) / before.abs().sum(1).clamp(min=1))
        zeros = torch.zeros_like(scales) if self.zeros is None else self.zeros.float()
        fresh = _spanning(rows, _ends(self.bits, self.zeros is None), 1.0)
        was_zero = ~before.any(1, keepdim=True)  # and so says nothing of how large its values are in scales
        return self._on(torch.where(was_zero, fresh, torch.stack([scales, zeros])[..., None]), rows)

    def _on(self, grid: Tensor, rows: Tensor) -> "Quantized":
        """These rows in the nearest codes of this grid."""
        zeros = None if self.zeros is None else grid[1, :, 0].to(torch.uint8)
        new = replace(self, scales=grid[0, :, 0].bfloat16(), zeros=zeros)
        steps = _steps(rows, grid, _ends(self.bits, zeros is None))
        return new.with_steps(unsliced(steps, tuple(self.codes.shape), self.axis))

    def steps(self) -> Tensor:
        """Each value in whole scales."""
        if self.zeros is None:
            return self.codes.float()
        zeros = self.each(self.zeros)
        return (self.codes.float() + zeros) % 256 - zeros

    def with_steps(self, steps: Tensor) -> "Quantized":
        """Codes of these whole numbers, which are within range."""
        return replace(self, codes=((steps + 128) % 256 - 128).to(torch.int8))

    def limits(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest number of scales that each value may be."""
        low, high = _ends(self.bits, self.zeros is None)
        zeros = self.each(torch.zeros_like(self.scales) if self.zeros is None else self.zeros)
        return low - zeros, high - zeros

    def each(self, of_slices: Tensor) -> Tensor:
        """What the slice of each value has, float32."""
        if self.group is None and self.axis is not None:
            return of_slices.float().reshape([-1 if a == self.axis else 1 for a in range(self.codes.dim())])
        rows = slices(torch.ones_like(self.codes, dtype=torch.float32), self.axis, self.group)
        return unsliced(rows * of_slices.float()[:, None], tuple(self.codes.shape), self.axis)


def _ends(bits: int, symmetric: bool) -> tuple[int, int]:
    """The lowest and the highest code."""
    return (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def _spanning(rows: Tensor, ends: tuple[int, int], clip: float) -> Tensor:
    """Scales and zero points (2, rows, 1) whose codes reach over so much of each row's range."""
    low, high = ends
    if low:
        scales = _storable(rows.abs().amax(1) * (clip / high))
        return torch.stack([scales, torch.zeros_like(scales)])[..., None]
    bottom, top = rows.amin(1).clamp(max=0) * clip, rows.amax(1).clamp(min=0) * clip
    scales = _storable(top / high - bottom / high)
    return torch.stack([scales, (-bottom / scales).round().clamp(low, high)])[..., None]


def _storable(scales: Tensor) -> Tensor:
    """To bfloat16 precision; the scale of zeros is 1."""
    scales = scales.bfloat16().float()
    return scales.where(scales >= torch.finfo(torch.bfloat16).tiny, 1.0)


def _steps(rows: Tensor, grid: Tensor, ends: tuple[int, int]) -> Tensor:
    scales, zeros = grid
    return ((rows / scales).round() + zeros).clamp(*ends) - zeros


def _least_error(rows: Tensor, ends: tuple[int, int]) -> Tensor:
    """The grid that clips each row where that errs least, by trial; then codes and scales by turns."""
    best = _spanning(rows, ends, 1.0)
    least = _errors(rows, best, ends)
    shifts = [0] if ends[0] else [-1, 0, 1]  # the best zero point of a clipped range need not be the nearest
    for clip, shift in product(CLIPS, shifts):
        scales, zeros = _spanning(rows, ends, clip)
        candidate = torch.stack([scales, (zeros + shift).clamp(0, ends[1])])
        errors = _errors(rows, candidate, ends)
        best, least = torch.where(errors < least, candidate, best), errors.minimum(least)
    for _ in range(3):
        candidate = _least_squares(rows, best, ends)
        errors = _errors(rows, candidate, ends)
        best, least = torch.where(errors < least, candidate, best), errors.minimum(least)
    return best


def _least_squares(rows: Tensor, grid: Tensor, ends: tuple[int, int]) -> Tensor:
    """The scales that err least for the codes of these."""
    scales, zeros = grid
    steps = _steps(rows, grid, ends)
    energy = steps.square().sum(1, keepdim=True)
    best = _storable((rows * steps).sum(1, keepdim=True) / energy.clamp(min=1))
    return torch.stack([torch.where(energy > 0, best, scales), zeros])


def _errors(rows: Tensor, grid: Tensor, ends: tuple[int, int]) -> Tensor:
    return (_steps(rows, grid, ends) * grid[0] - rows).square().sum(1, keepdim=True)
