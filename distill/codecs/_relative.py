"""Compressed sparse rows with relative indices of a few bits, as accelerators read them.

Han et al.: EIE: Efficient Inference Engine on Compressed Deep Neural Network. arXiv:1602.01528, section III.B. Each
entry is a value and the number of zeros before it in its row; where these are too many, a zero is put in as an entry.
"""

import numpy as np

from distill.errors import RecipeError


def check(name: str, index_bits: int) -> None:
    """Raises:
    RecipeError: there are no indices of so many bits.
    """
    if not 1 <= index_bits <= 32:
        raise RecipeError(f"codec '{name}' has indices of 1 to 32 bits, not {index_bits}")


def split(matrix: np.ndarray, index_bits: int) -> list[np.ndarray]:
    """Entries in each row, relative indices, and values."""
    most = 2**index_bits
    rows, columns = np.nonzero(matrix)
    before = np.where(np.diff(rows, prepend=-1) != 0, -1, np.concatenate([[-1], columns[:-1]]))
    gaps = columns - before - 1
    fillers = gaps // most
    ends = np.cumsum(fillers + 1) - 1
    indices = np.full(int(ends[-1]) + 1 if len(ends) else 0, most - 1, np.uint32)
    values = np.zeros(len(indices), matrix.dtype)
    indices[ends], values[ends] = gaps % most, matrix[rows, columns]
    counts = np.bincount(rows, fillers + 1, matrix.shape[0])
    return [counts.astype(np.uint32), indices, values]


def join(streams: list[np.ndarray], shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """The inverse of `split`.

    Raises:
        ValueError: the streams contradict each other or the shape.
    """
    counts, indices, values = streams
    if len(counts) != shape[0] or sum(counts.tolist()) != len(indices) or (counts < 0).any():
        raise ValueError("its rows have more or fewer entries than there are")
    rows = np.repeat(np.arange(shape[0]), counts.astype(np.int64))
    steps = np.cumsum(indices.astype(np.int64) + 1)
    starts = np.cumsum(counts, dtype=np.int64) - counts.astype(np.int64)
    columns = steps - np.concatenate([[0], steps])[starts][rows] - 1
    if len(indices) and (columns.max() >= shape[1] or indices.min() < 0 or columns.min() < 0):
        raise ValueError("its indices leave the matrix")
    matrix = np.zeros(shape, dtype)
    matrix[rows, columns] = values
    return matrix
