"""Another order of the axes, in which neighbours are more alike."""

from itertools import permutations

import numpy as np

from distill.codecs import Transform, codec
from distill.codecs._frame import Reader

MOST_AXES = 5
"""Of more axes, only rotations are tried."""


@codec("permute")
class Permute(Transform):
    """The order of axes whose neighbours, in C order, differ least on average."""

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        axes = range(codes.ndim)
        rotations = (tuple(np.roll(axes, by).tolist()) for by in axes)
        orders = permutations(axes) if codes.ndim <= MOST_AXES else rotations
        best = min(orders, key=lambda order: _roughness(codes.transpose(order)))
        return bytes(best), [codes.transpose(best)]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        order = list(head.take(len(shape)))
        return streams[0].reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def _roughness(codes: np.ndarray) -> float:
    return float(np.abs(np.diff(codes.ravel().astype(np.float64))).mean()) if codes.size > 1 else 0.0
