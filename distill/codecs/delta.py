"""Differences of neighbours along an axis."""

import numpy as np

from distill.codecs import Transform, codec
from distill.codecs._frame import Reader
from distill.registry.ranges import Axis


@codec("delta")
class Delta(Transform):
    """Each value less the one before it, modulo the range of its type; the first of a line stays.

    Args:
        axis: along which values are neighbours, counted from the end if negative. Where the tensor has no such axis, or
            only one value along it, as 1x1 kernels have, the last axis with more is taken.
    """

    def __init__(self, *, axis: Axis = -1) -> None:
        self.axis = axis

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        lines = codes.swapaxes(-1, self._axis(codes.shape))
        different = lines.copy()
        with np.errstate(over="ignore"):
            different[..., 1:] -= lines[..., :-1]
        return b"", [different]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        (different,) = streams
        values = np.cumsum(different.astype(dtype, copy=False), -1, dtype=dtype)
        return values.swapaxes(-1, self._axis(shape))

    def _axis(self, shape: tuple[int, ...]) -> int:
        if -len(shape) <= self.axis < len(shape) and shape[self.axis] > 1:
            return self.axis
        return max((axis for axis, size in enumerate(shape) if size > 1), default=-1)
