"""Oseledets: Tensor-Train Decomposition. SIAM Journal on Scientific Computing 33(5), 2011.

Weights become tensors whose modes are ordered inputs first, then the kernel, outputs last. Cut at the bonds beside the
kernel, or at the one in the middle, such a train is a product of two or three plain layers: it computes as fast as
those of that rank, and the other bonds only save storage.
"""

from math import isqrt, prod
from typing import NamedTuple

import torch
from torch import Tensor

from distill.compress._decompositions import singular_values, svd
from distill.compress._layers import rank_within

SPARED = 0.1
"""Of the squared error of a fast train, what bonds that only save storage may lose."""


class Shape(NamedTuple):
    """A train's modes and the ranks of the bonds between them."""

    inputs: tuple[int, ...]
    kernel: int
    """Height times width; no mode of its own where that is 1."""
    outputs: tuple[int, ...]
    ranks: tuple[int, ...]

    @property
    def modes(self) -> tuple[int, ...]:
        """All of them, in order."""
        return (*self.inputs, *((self.kernel,) if self.kernel > 1 else ()), *self.outputs)

    @property
    def size(self) -> int:
        """Number of values in all cores."""
        ranks = (1, *self.ranks, 1)
        return sum(a * n * b for a, n, b in zip(ranks, self.modes, ranks[1:], strict=False))

    @property
    def widths(self) -> tuple[int, ...]:
        """Ranks of the bonds at which layers are cut: one, or one on either side of the kernel."""
        first = len(self.inputs) - 1
        return self.ranks[first : first + (2 if self.kernel > 1 else 1)]


class Trains:
    """All trains that a weight (inputs, kernel, outputs) may become.

    Theorem 2.2: the squared error of a train is at most the sum, over its bonds, of what cutting the tensor at that
    bond alone would lose. So ranks for any error bound follow from the singular values at the bonds, computed once.

    Args:
        weight: the tensor.
        weighted: the tensor times the roots of its error weights; used at the bonds where layers are cut.
    """

    def __init__(self, weight: Tensor, weighted: Tensor | None = None) -> None:
        inputs, self.kernel, outputs = weight.shape
        self.cuts = cuts = {inputs, inputs * self.kernel}
        self.modes = [(i, o) for i in _splits(inputs) for o in _splits(outputs)]
        rows = {row for i, o in self.modes for row in _bonds(Shape(i, self.kernel, o, ()).modes)}
        self.spectra = {
            row: singular_values((weight if weighted is None or row not in cuts else weighted).reshape(row, -1))
            for row in rows
        }

    def smallest(self, error: float, *, fast: bool = False) -> Shape:
        """The train with the fewest values whose relative error is at most ``error``; ``fast`` as in `within`."""
        return min((self.within(error, *modes, fast=fast) for modes in self.modes), key=lambda shape: shape.size)

    def within(self, error: float, inputs: tuple[int, ...], outputs: tuple[int, ...], *, fast: bool = False) -> Shape:
        """The ranks of a train of these modes whose relative error is at most ``error``.

        Every bond may lose as much, as in the paper. ``fast`` spends almost all of the error where layers are cut,
        which is what decides how they run, and cuts there at multiples of 8, as far as there are so many.
        """
        modes = Shape(inputs, self.kernel, outputs, ()).modes
        bonds = _bonds(modes)
        others = sum(row not in self.cuts for row in bonds)
        each = 1 / len(bonds)  # of the squared error: the paper's delta, squared, in units of the tensor's norm
        stored = SPARED / others if fast and others else each
        run = (1 - others * stored) / max(len(bonds) - others, 1)
        ranks: list[int] = []
        for row, mode in zip(bonds, modes, strict=False):
            cut = row in self.cuts
            rank = rank_within(self.spectra[row], error**2 * (run if cut else stored))
            rank = min(-(-rank // 8) * 8, len(self.spectra[row])) if fast and cut else rank
            ranks.append(min((ranks[-1] if ranks else 1) * mode, rank))
        return Shape(inputs, self.kernel, outputs, tuple(ranks))


def decompose(weight: Tensor, shape: Shape) -> list[Tensor]:
    """Algorithm 1 with given ranks: cores (rank, mode, rank), the singular values of a bond shared by its two sides."""
    cores, root, rest = [], torch.ones(1, dtype=torch.float64), weight.double().reshape(1, -1)
    for mode, rank in zip(shape.modes, shape.ranks, strict=False):
        u, s, vh = svd(rest.reshape(len(root) * mode, -1))
        core = u[:, :rank].reshape(len(root), mode, rank)
        rest = s[:rank, None] * vh[:rank]
        next_root = s[:rank].clamp(min=1e-12 * float(s[0]) + 1e-300).sqrt()
        cores.append(core / root[:, None, None] * next_root)
        root = next_root
    return [*cores, (rest / root[:, None]).reshape(len(root), shape.modes[-1], 1)]


def contract(cores: list[Tensor], shape: Shape) -> list[Tensor]:
    """The layers of a train: matrices (rank, inputs) and (outputs, rank), and between them the kernel's core if any."""
    count, outputs = len(shape.inputs), len(cores) - len(shape.outputs)
    first, second = cores[0].flatten(0, 1).T, cores[-1].flatten(1).T
    for core in cores[1:count]:
        first = (core.permute(2, 1, 0) @ first).transpose(1, 2).flatten(1)
    for core in reversed(cores[outputs:-1]):
        second = (second @ core.permute(1, 2, 0)).flatten(0, 1)
    return [first, *cores[count:outputs], second]


def dense(layers: list[Tensor]) -> Tensor:
    """The weight (inputs, kernel, outputs) that the layers of `contract` multiply to."""
    first, *between, second = layers
    if between:
        return (first.T @ between[0].transpose(0, 1) @ second.T).transpose(0, 1)
    return (first.T @ second.T)[:, None]


def _splits(size: int) -> list[tuple[int, ...]]:
    """As one mode and, unless prime, as the two that are most alike."""
    divisor = next(d for d in range(isqrt(size), 0, -1) if size % d == 0)
    return [(size,)] + ([(divisor, size // divisor)] if divisor > 1 else [])


def _bonds(modes: tuple[int, ...]) -> list[int]:
    """Rows of the tensor's unfolding at each bond."""
    return [prod(modes[:cut]) for cut in range(1, len(modes))]
