"""Wu et al.: Quantized Convolutional Neural Networks for Mobile Devices. arXiv:1512.06473, section 3: layers compute
with the values that their weights share, and never with the weights.

The product with a weight of shared values needs each value once per output (`Clustered`: inputs of one code are added
up, and the sum is multiplied), or the product of each part of an input with each entry of a codebook once for all
outputs, which then look it up (`Codebooks`, equation 6 of the paper).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np


class Shared(ABC):
    """A weight (outputs, ...) of shared values that stays coded."""

    shape: tuple[int, ...]

    @abstractmethod
    def decode(self) -> np.ndarray:
        """The weight, float32."""

    @abstractmethod
    def rows(self, inputs: np.ndarray) -> np.ndarray:
        """The product (outputs, positions) of the weight, as a matrix, with inputs (depth, positions)."""

    def times(self, inputs: np.ndarray) -> np.ndarray:
        """`rows` of inputs (1, depth, positions), for layers without groups."""
        return self.rows(np.ascontiguousarray(inputs[0]))


@dataclass(frozen=True, eq=False)
class Clustered(Shared):
    """Each position has one of a few values; where that is 0, nothing is computed."""

    codes: np.ndarray
    table: np.ndarray
    """(codes,) float32"""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.codes.shape

    def decode(self) -> np.ndarray:
        return self.table[self.codes]

    def rows(self, inputs: np.ndarray) -> np.ndarray:
        result = np.zeros((len(self.codes), inputs.shape[1]), np.float32)
        for output, (order, starts, values) in enumerate(self._sorted):
            if len(order):
                result[output] = values @ np.add.reduceat(inputs[order], starts, 0)
        return result

    @cached_property
    def _sorted(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each output, its inputs sorted by their codes, where each code begins, and the codes' values."""
        plan = []
        for codes in self.codes.reshape(len(self.codes), -1):
            used = np.flatnonzero(self.table[codes])
            order = used[np.argsort(codes[used], kind="stable")]
            present, starts = np.unique(codes[order], return_index=True)
            plan.append((order, starts, self.table[present]))
        return plan


@dataclass(frozen=True, eq=False)
class Codebooks(Shared):
    """Each block of neighbouring inputs of an output is the sum of an entry of each codebook."""

    codes: np.ndarray
    """(stages, outputs, blocks)"""
    books: np.ndarray
    """(stages, entries, block) float32"""
    shape: tuple[int, ...]

    def decode(self) -> np.ndarray:
        blocks = sum(book[codes] for book, codes in zip(self.books, self.codes, strict=True))
        rows = np.asarray(blocks).reshape(self.shape[0], -1)
        return rows[:, : int(np.prod(self.shape[1:]))].reshape(self.shape)

    def rows(self, inputs: np.ndarray) -> np.ndarray:
        (_, outputs, blocks), block = self.codes.shape, self.books.shape[2]
        filled = np.pad(inputs, ((0, blocks * block - len(inputs)), (0, 0))).reshape(blocks, block, -1)
        result = np.zeros((outputs, inputs.shape[1]), np.float32)
        for book, codes in zip(self.books, self.codes, strict=True):
            for place, part in enumerate(filled):
                result += (book @ part)[codes[:, place]]
        return result
