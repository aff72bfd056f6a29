"""Differences of neighbours along an axis."""

import numpy as np

from distill.codecs import Transform, codec
from distill.codecs._frame import Reader
from distill.ranges import Axis


@codec("delta")
class Delta(Transform):
    """Each value less the one before it, modulo the range of its type; the first of a line stays.

    Args:
        axis: along which values are neighbours; counted from the end if negative.
    """

    def __init__(self, *, axis: Axis = -1) -> None:
        self.axis = axis

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        lines = codes.swapaxes(-1, self._axis(codes.ndim))
        different = lines.copy()
        with np.errstate(over="ignore"):
            different[..., 1:] -= lines[..., :-1]
        return b"", [different]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        (different,) = streams
        values = np.cumsum(different.astype(dtype, copy=False), -1, dtype=dtype)
        return values.swapaxes(-1, self._axis(len(shape)))

    def _axis(self, axes: int) -> int:
        """A setting for convolutions also fits the matrices of the same network: past the last axis is the last."""
        return self.axis if -axes <= self.axis < axes else -1
