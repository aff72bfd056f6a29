"""Oseledets: Tensor-Train Decomposition. SIAM Journal on Scientific Computing 33(5), 2011.

Matrices become tensors whose modes are ordered inputs first, outputs last. Cut at the bond in between, such a train is
a product of two matrices: it computes as fast as a matrix of that rank, and the other bonds only save storage.
"""

from math import isqrt, prod
from typing import NamedTuple

import torch
from torch import Tensor

from distill.compress._layers import rank_within


class Shape(NamedTuple):
    """A train's modes and the ranks of the bonds between them."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ranks: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values in all cores."""
        ranks = (1, *self.ranks, 1)
        return sum(a * n * b for a, n, b in zip(ranks, self.inputs + self.outputs, ranks[1:], strict=False))


class Trains:
    """All trains that a matrix (inputs, outputs) may become.

    Theorem 2.2: the squared error of a train is at most the sum, over its bonds, of what cutting the tensor at that
    bond alone would lose. So ranks for any error bound follow from the singular values at the bonds, computed once.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.modes = [(i, o) for i in _splits(matrix.shape[0]) for o in _splits(matrix.shape[1])]
        rows = {row for i, o in self.modes for row in _bonds(i + o)}
        self.spectra = {row: torch.linalg.svdvals(matrix.double().reshape(row, -1)) for row in rows}

    def smallest(self, error: float) -> Shape:
        """The train with the fewest values whose relative error is at most ``error``."""
        return min((self._within(error, *modes) for modes in self.modes), key=lambda shape: shape.size)

    def _within(self, error: float, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shape:
        modes = inputs + outputs
        tolerance = error**2 / (len(modes) - 1)  # the paper's delta, squared, in units of the tensor's norm
        ranks: list[int] = []
        for row, mode in zip(_bonds(modes), modes, strict=False):
            most = (ranks[-1] if ranks else 1) * mode
            ranks.append(min(most, rank_within(self.spectra[row], tolerance)))
        return Shape(inputs, outputs, tuple(ranks))


def decompose(matrix: Tensor, shape: Shape) -> list[Tensor]:
    """Algorithm 1 with given ranks: cores (rank, mode, rank), the singular values of a bond shared by its two sides."""
    cores, root, rest = [], torch.ones(1, dtype=torch.float64), matrix.double().reshape(1, -1)
    modes = shape.inputs + shape.outputs
    for mode, rank in zip(modes, shape.ranks, strict=False):
        u, s, vh = torch.linalg.svd(rest.reshape(len(root) * mode, -1), full_matrices=False)
        core = u[:, :rank].reshape(len(root), mode, rank)
        rest = s[:rank, None] * vh[:rank]
        next_root = s[:rank].clamp(min=1e-12 * float(s[0]) + 1e-300).sqrt()
        cores.append(core / root[:, None, None] * next_root)
        root = next_root
    return [*cores, (rest / root[:, None]).reshape(len(root), modes[-1], 1)]


def contract(cores: list[Tensor], inputs: int) -> tuple[Tensor, Tensor]:
    """The two matrices (middle rank, inputs) and (outputs, middle rank) of a train with so many modes of inputs."""
    first = cores[0].new_ones(1, 1)
    for core in cores[:inputs]:
        first = torch.einsum("ai,anb->bin", first, core).flatten(1)
    second = cores[0].new_ones(1, 1)
    for core in reversed(cores[inputs:]):
        second = torch.einsum("anb,ob->noa", core, second).flatten(0, 1)
    return first, second


def _splits(size: int) -> list[tuple[int, ...]]:
    """As one mode and, unless prime, as the two that are most alike."""
    divisor = next(d for d in range(isqrt(size), 0, -1) if size % d == 0)
    return [(size,)] + ([(divisor, size // divisor)] if divisor > 1 else [])


def _bonds(modes: tuple[int, ...]) -> list[int]:
    """Rows of the tensor's unfolding at each bond."""
    return [prod(modes[:cut]) for cut in range(1, len(modes))]
