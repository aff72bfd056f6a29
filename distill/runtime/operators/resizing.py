"""Images in another size."""

from collections.abc import Sequence

import numpy as np

from distill.runtime.operators.registry import operator

Scales = Sequence[float] | None


@operator("upsample_nearest2d")
def nearest(input: np.ndarray, output_size: list[int] | None = None, scale_factors: Scales = None) -> np.ndarray:
    """Of each output pixel, the input pixel at floor(place / scale)."""
    for axis, (size, scale) in enumerate(_sizes(input, output_size, scale_factors)):
        places = np.floor(np.arange(size) * np.float32(scale)).astype(np.int64)
        input = input.take(np.minimum(places, input.shape[2 + axis] - 1), 2 + axis)
    return input


@operator("upsample_bilinear2d")
def bilinear(
    input: np.ndarray,
    output_size: list[int] | None = None,
    align_corners: bool = False,
    scale_factors: Scales = None,
) -> np.ndarray:
    """Between the centres of the two nearest pixels along each axis; ``align_corners``: the corners stay in place."""
    for axis, (size, scale) in enumerate(_sizes(input, output_size, scale_factors)):
        length = input.shape[2 + axis]
        if align_corners:
            places = np.arange(size) * ((length - 1) / (size - 1) if size > 1 else 0.0)
        else:
            places = np.maximum((np.arange(size) + 0.5) * scale - 0.5, 0)
        low = np.minimum(places.astype(np.int64), length - 1)
        high = np.minimum(low + 1, length - 1)
        part = (places - low).astype(np.float32).reshape(-1, *[1] * (1 - axis))
        input = input.take(low, 2 + axis) * (1 - part) + input.take(high, 2 + axis) * part
    return input


@operator("pixel_shuffle")
def pixel_shuffle(input: np.ndarray, upscale_factor: int) -> np.ndarray:
    """Shi et al. arXiv:1609.05158, section 3.2: channels become pixels."""
    batch, channels, height, width = input.shape
    factor = upscale_factor
    split = input.reshape(batch, -1, factor, factor, height, width).transpose(0, 1, 4, 2, 5, 3)
    return split.reshape(batch, channels // factor**2, height * factor, width * factor)


@operator("pixel_unshuffle")
def pixel_unshuffle(input: np.ndarray, downscale_factor: int) -> np.ndarray:
    """The inverse of `pixel_shuffle`: pixels become channels."""
    batch, channels, height, width = input.shape
    factor = downscale_factor
    rows, columns = height // factor, width // factor
    split = input.reshape(batch, channels, rows, factor, columns, factor).transpose(0, 1, 3, 5, 2, 4)
    return split.reshape(batch, channels * factor**2, rows, columns)


def _sizes(input: np.ndarray, size: list[int] | None, scales: Scales) -> list[tuple[int, float]]:
    """Of each axis, how many pixels it gets, and how many of the input's each is apart."""
    lengths = input.shape[2:]
    if size is not None:
        return [(wanted, length / wanted) for wanted, length in zip(size, lengths, strict=True)]
    assert scales is not None
    return [(int(length * scale), 1 / scale) for scale, length in zip(scales, lengths, strict=True)]
