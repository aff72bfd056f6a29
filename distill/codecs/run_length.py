"""Each run of equal values as the value and how often it repeats."""

from math import prod

import numpy as np

from distill.codecs import Transform, codec
from distill.codecs._frame import Reader


@codec("run_length")
class RunLength(Transform):
    """Runs, in C order."""

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        flat = codes.ravel()
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        lengths = np.diff(starts, append=flat.size)
        return b"", [flat[starts], (lengths - 1).astype(np.uint32)]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        values, more = streams
        # Before anything is repeated: lengths from a damaged stream could ask for any amount of memory.
        if more.shape != values.shape or sum(more.tolist()) + more.size != prod(shape) or (more < 0).any():
            raise ValueError("its runs are not as long as the tensor")
        return np.repeat(values.astype(dtype, copy=False), more.astype(np.int64) + 1)
