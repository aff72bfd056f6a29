"""Blocks of a matrix that are not all zero (block compressed sparse rows): a bit for each block, and these blocks."""

import numpy as np

from distill.codecs import Transform, codec
from distill.codecs._frame import Reader
from distill.codecs._matrix import matrix
from distill.registry.ranges import BlockSize


@codec("block")
class Block(Transform):
    """The first axis is the rows, all others together the columns; what a block has beyond them is zero.

    Args:
        size: rows and columns of a block.
    """

    def __init__(self, *, size: BlockSize = 4) -> None:
        self.size = size

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        rows, columns = matrix(codes.shape)
        fill = ((0, -rows % self.size), (0, -columns % self.size))
        blocks = np.pad(codes.reshape(rows, columns), fill)
        grid = blocks.reshape(-(-rows // self.size), self.size, -1, self.size).swapaxes(1, 2)
        present = (grid != 0).any((2, 3))
        return b"", [present.astype(np.uint8), grid[present]]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        present, blocks = streams
        rows, columns = matrix(shape)
        high, wide = -(-rows // self.size), -(-columns // self.size)
        present = present.reshape(high, wide) != 0
        codes = np.zeros((high, self.size, wide, self.size), dtype)
        codes.swapaxes(1, 2)[present] = blocks
        return codes.reshape(high * self.size, wide * self.size)[:rows, :columns]
