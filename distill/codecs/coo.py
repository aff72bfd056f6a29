"""The coordinates of each value that is not zero, one per axis, and these values."""

import numpy as np

from distill.codecs import Transform, codec
from distill.codecs._frame import Reader


@codec("coo")
class Coo(Transform):
    """Coordinates, in C order."""

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        places = np.nonzero(codes)
        return b"", [*(place.astype(np.uint32) for place in places), codes[codes != 0]]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        codes = np.zeros(shape, dtype)
        *places, values = streams
        if len(places) != codes.ndim or any(place.shape != values.shape for place in places):
            raise ValueError("its coordinates are not one per axis and value")
        codes[tuple(place.astype(np.int64) for place in places)] = values
        return codes
