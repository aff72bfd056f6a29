"""Tensors as matrices."""

from math import prod


def matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows, the first axis, and columns, all others together; what has fewer than two axes is one row."""
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, prod(shape))
