"""What a weight's neighbours, coded before it, say about its magnitude: an estimate in integers, the same everywhere.

A tensor is seen as rows of ``width`` weights, for a convolution one row per filter. Each estimate is a weighted sum of
seven magnitudes, in units of 2**-16:

* ``row``: the mean of the row so far; filters differ in scale,
* ``near``: the same with a memory of about four weights: the kernel being coded,
* ``left``: the weight before,
* ``column``: the mean of the column so far: input channels and kernel positions differ in scale,
* ``up``: the weight above: the same one of the previous filter,
* ``channel``: the weight ``period`` before: the same kernel position of the previous input channel,
* ``both``: ``row`` times ``column``, in units of about the mean: their scales multiply.

Where there is no such neighbour yet, ``prior`` stands for it.

The signs of four neighbours say which sign to expect: of the weight before and of the one above in the kernel, counted
twice, of the same kernel position in the previous channel, and of the same weight of the previous filter.
"""

from collections.abc import Iterator

import numpy as np

NAMES = ("row", "near", "left", "column", "up", "channel", "both")
MEMORY = 256
"""A slow mean is that of all weights so far, up to about this many; then it forgets."""
LEVELS = np.array([-2, -2, -2, -2, -1, -1, 0, 1, 1, 2, 2, 2, 2], np.int8)
"""How surely which sign is expected, by the sum of the neighbours' signs from -6 to 6."""
RATES = (2**15 // (np.arange(MEMORY) + 2)).astype(np.int32)
"""How much of the distance to a new magnitude a slow mean goes, in units of 2**-15, by how many it has seen."""


def neighbours(magnitudes: np.ndarray, period: int, prior: int) -> Iterator[np.ndarray]:
    """The seven of NAMES for each weight, in their order; int64, (rows, width).

    Args:
        magnitudes: uint8, (rows, width).
        period: weights of one kernel.
        prior: in units of 2**-16.
    """
    scaled = magnitudes.astype(np.int64) << 16
    row, column = _means(scaled.T, prior, _slow).T, _means(scaled, prior, _slow)
    yield row
    yield _means(scaled.T, prior, _fast).T
    yield _shifted(scaled, 1, 1, prior)
    yield column
    yield _shifted(scaled, 1, 0, prior)
    yield _shifted(scaled, period, 1, prior)
    yield row * column >> prior.bit_length()


def estimates(magnitudes: np.ndarray, period: int, prior: int, weights: tuple[int, ...]) -> np.ndarray:
    """int64, (rows, width), in units of 2**-16."""
    total = np.zeros(magnitudes.shape, np.int64)
    for weight, values in zip(weights, neighbours(magnitudes, period, prior), strict=True):
        if weight:
            total += weight * values
    return total


def levels(signs: np.ndarray, period: int, line: int) -> np.ndarray:
    """int8, (rows, width): of LEVELS.

    Args:
        signs: int8, (rows, width): -1, 0 or 1.
        period: weights of one kernel.
        line: weights of one line of a kernel.
    """
    total = 2 * (_shifted(signs, 1, 1, 0) + _shifted(signs, line, 1, 0))
    return LEVELS[total + _shifted(signs, period, 1, 0) + _shifted(signs, 1, 0, 0) + 6]


def _slow(mean: np.ndarray, new: np.ndarray, count: int) -> np.ndarray:
    return mean + ((new - mean) * RATES[min(count, MEMORY - 1)] >> 15)


def _fast(mean: np.ndarray, new: np.ndarray, count: int) -> np.ndarray:
    return mean + (new - mean >> 2)


def _means(scaled: np.ndarray, prior: int, update) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The mean of what is above each value, column by column."""
    means = np.empty(scaled.shape, np.int64)
    mean = np.full(scaled.shape[1], prior, np.int64)
    for count, row in enumerate(scaled):
        means[count] = mean
        mean = update(mean, row, count)
    return means


def _shifted(scaled: np.ndarray, by: int, axis: int, prior: int) -> np.ndarray:
    moved = np.full(scaled.shape, prior, np.int64)
    if axis:
        moved[:, by:] = scaled[:, :-by]
    else:
        moved[by:] = scaled[:-by]
    return moved
