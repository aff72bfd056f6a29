"""The largest value or the mean of each window."""

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from distill.runtime.operators.registry import operator, pair

Sizes = int | list[int]


@operator("max_pool2d")
def max_pool2d(
    input: np.ndarray,
    kernel_size: Sizes,
    stride: Sizes = (),  # type: ignore[assignment]
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> np.ndarray:
    """Beyond the borders all values are smaller than any in the image."""
    lowest = -np.inf if input.dtype.kind == "f" else np.iinfo(input.dtype).min
    steps = pair(stride) if stride else pair(kernel_size)
    every = _windows(input, pair(kernel_size), steps, pair(padding), pair(dilation), ceil_mode, lowest)
    return every.max((-2, -1))


@operator("avg_pool2d")
def avg_pool2d(
    input: np.ndarray,
    kernel_size: Sizes,
    stride: Sizes = (),  # type: ignore[assignment]
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> np.ndarray:
    """Windows that reach further than the padding, as ``ceil_mode`` lets them, are means of fewer values."""
    kernel, ends = pair(kernel_size), pair(padding)
    steps = pair(stride) if stride else kernel
    sums = _windows(input, kernel, steps, ends, (1, 1), ceil_mode, 0.0).sum((-2, -1), dtype=np.float32)
    if divisor_override:
        return sums / np.float32(divisor_override)
    inside = np.ones((1, 1, *input.shape[2:]), np.float32)
    if count_include_pad:
        inside = np.pad(inside, ((0, 0), (0, 0), (ends[0],) * 2, (ends[1],) * 2), constant_values=1)
        ends = (0, 0)
    counts = _windows(inside, kernel, steps, ends, (1, 1), ceil_mode, 0.0).sum((-2, -1))
    return sums / counts[..., : sums.shape[2], : sums.shape[3]]


@operator("adaptive_avg_pool2d")
def adaptive_avg_pool2d(input: np.ndarray, output_size: Sizes) -> np.ndarray:
    return _adaptive(input, pair(output_size), np.mean)


@operator("adaptive_max_pool2d")
def adaptive_max_pool2d(input: np.ndarray, output_size: Sizes) -> tuple[np.ndarray]:
    """The maxima; where they are, ATen's second output, is not computed."""
    return (_adaptive(input, pair(output_size), np.max),)


def _adaptive(input: np.ndarray, size: tuple[int, int], reduce: Callable[..., np.ndarray]) -> np.ndarray:
    """Window i of n reaches from floor(i * length / n) to ceil((i + 1) * length / n)."""
    spans = [
        [(place * length // count, -(-(place + 1) * length // count)) for place in range(count)]
        for length, count in zip(input.shape[-2:], size, strict=True)
    ]
    rows = [
        [reduce(input[..., top:bottom, left:right], axis=(-2, -1)) for left, right in spans[1]]
        for top, bottom in spans[0]
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _windows(
    input: np.ndarray,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    ceil_mode: bool,
    fill: float,
) -> np.ndarray:
    """(batch, channels, height, width, rows, columns)"""
    reach = [dilation[k] * (kernel[k] - 1) + 1 for k in range(2)]
    ends = []
    for k in range(2):
        free = input.shape[2 + k] + 2 * padding[k] - reach[k]
        count = (-(-free // stride[k]) if ceil_mode else free // stride[k]) + 1
        if ceil_mode and (count - 1) * stride[k] >= input.shape[2 + k] + padding[k]:
            count -= 1  # no window begins beyond the image and the padding before it
        needed = (count - 1) * stride[k] + reach[k] - input.shape[2 + k] - padding[k]
        ends.append((padding[k], max(needed, 0)))
    padded = np.pad(input, ((0, 0), (0, 0), *ends), constant_values=fill) if any(map(any, ends)) else input
    every = sliding_window_view(padded, reach, (2, 3))[:, :, :: stride[0], :: stride[1]]
    return every[..., :: dilation[0], :: dilation[1]]
