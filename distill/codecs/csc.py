"""Compressed sparse columns: see `distill.codecs._relative`."""

import numpy as np

from distill.codecs import Transform, _relative, codec
from distill.codecs._frame import Reader
from distill.codecs._matrix import matrix
from distill.registry.ranges import IndexBits


@codec("csc")
class Csc(Transform):
    """The first axis is the rows, all others together the columns; entries lie column by column.

    Args:
        index_bits: of the number of zeros before an entry.
    """

    def __init__(self, *, index_bits: IndexBits = 4) -> None:
        _relative.check("csc", index_bits)
        self.index_bits = index_bits

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        return b"", _relative.split(codes.reshape(matrix(codes.shape)).T, self.index_bits)

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        rows, columns = matrix(shape)
        return _relative.join(streams, (columns, rows), dtype).T
