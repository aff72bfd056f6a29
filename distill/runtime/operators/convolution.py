"""Convolution: one matrix product per group over all places of the kernel (Chellapilla, Puri & Simard, 2006).

A depthwise one is a sum over the places of the kernel instead: its matrices would have one row.
"""

from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from distill.runtime.lookups import Shared
from distill.runtime.operators.registry import operator, pair

Sizes = int | list[int]


@operator("conv2d")
def conv2d(
    input: np.ndarray,
    weight: np.ndarray | Shared,
    bias: np.ndarray | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> np.ndarray:
    """(batch, channels, height, width), weight (outputs, channels / groups, rows, columns)."""
    steps, spread = pair(stride), pair(dilation)
    padded = _padded(input, weight.shape[2:], padding, spread)
    if isinstance(weight, np.ndarray) and weight.shape[1] == 1 and groups == input.shape[1] == len(weight):
        result = _depthwise(padded, weight, steps, spread)
    else:
        rows = windows(padded, weight.shape[2:], steps, spread, groups)
        result = _product(weight, rows, groups)
    return result if bias is None else result + bias[:, None, None]


@operator("conv_transpose2d")
def conv_transpose2d(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> np.ndarray:
    """The transpose of `conv2d`: a convolution of the input with zeros between its pixels, by the mirrored kernel."""
    batch, channels, height, width = input.shape
    (down, right), (top, left), spread = pair(stride), pair(padding), pair(dilation)
    more = pair(output_padding)
    ends = [spread[k] * (weight.shape[2 + k] - 1) for k in range(2)]
    wide = np.zeros((batch, channels, (height - 1) * down + 1, (width - 1) * right + 1), input.dtype)
    wide[:, :, ::down, ::right] = input
    before, after = (ends[0] - top, ends[1] - left), (ends[0] - top + more[0], ends[1] - left + more[1])
    padded = np.pad(wide, ((0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True))))
    cut = [slice(max(-b, 0), size - max(-a, 0)) for b, a, size in zip(before, after, padded.shape[2:], strict=True)]
    outputs = weight.shape[1]
    mirrored = weight.reshape(groups, channels // groups, outputs, *weight.shape[2:])[..., ::-1, ::-1].swapaxes(1, 2)
    return conv2d(
        padded[:, :, cut[0], cut[1]],
        np.ascontiguousarray(mirrored).reshape(groups * outputs, channels // groups, *weight.shape[2:]),
        bias,
        dilation=list(spread),
        groups=groups,
    )


def windows(
    input: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int], groups: int
) -> np.ndarray:
    """What each output pixel sees: (batch, groups, channels / groups * rows * columns, height, width)."""
    batch, channels, height, width = input.shape
    if kernel == (1, 1):
        seen = input[:, :, :: stride[0], :: stride[1]]
    else:
        reach = [dilation[k] * (kernel[k] - 1) + 1 for k in range(2)]
        every = sliding_window_view(input, reach, (2, 3))[:, :, :: stride[0], :: stride[1]]
        seen = every[..., :: dilation[0], :: dilation[1]].transpose(0, 1, 4, 5, 2, 3)
    height, width = seen.shape[-2:]
    return seen.reshape(batch, groups, channels // groups * kernel[0] * kernel[1], height, width)


def _product(weight: np.ndarray | Shared, rows: np.ndarray, groups: int) -> np.ndarray:
    batch, _, depth, height, width = rows.shape
    flat = rows.reshape(batch, groups, depth, height * width)
    if isinstance(weight, np.ndarray):
        result = np.matmul(weight.reshape(groups, -1, depth), flat)
    else:
        result = np.stack([weight.times(image) for image in flat])
    return result.reshape(batch, -1, height, width)


def _depthwise(input: np.ndarray, weight: np.ndarray, stride: tuple[int, int], dilation: tuple[int, int]) -> np.ndarray:
    kernel = weight.shape[2:]
    height, width = ((input.shape[2 + k] - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1 for k in range(2))
    result = np.zeros((*input.shape[:2], height, width), input.dtype)
    for row, column in product(range(kernel[0]), range(kernel[1])):
        factors = weight[:, 0, row, column]
        if factors.any():  # a shift has one place per channel that is not 0
            top, left = row * dilation[0], column * dilation[1]
            bottom, right = top + (height - 1) * stride[0] + 1, left + (width - 1) * stride[1] + 1
            result += input[:, :, top : bottom : stride[0], left : right : stride[1]] * factors[:, None, None]
    return result


def _padded(input: np.ndarray, kernel: tuple[int, ...], padding: Sizes | str, dilation: tuple[int, int]) -> np.ndarray:
    if padding == "valid":
        return input
    if padding == "same":
        total = [dilation[k] * (kernel[k] - 1) for k in range(2)]
        ends = [(size // 2, size - size // 2) for size in total]
    else:
        assert not isinstance(padding, str)
        ends = [(size, size) for size in pair(padding)]
    return np.pad(input, ((0, 0), (0, 0), *ends)) if any(map(any, ends)) else input
