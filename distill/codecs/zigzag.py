"""Signed integers as unsigned ones of the same size, small where they were near zero: 0, -1, 1, -2, 2, ..."""

import numpy as np

from distill.codecs import Transform, codec
from distill.codecs._frame import Reader


@codec("zigzag")
class Zigzag(Transform):
    """0, 1, 2, 3, 4, ... for 0, -1, 1, -2, 2, ...; unsigned values count as signed ones of the same bits."""

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        signs = codes.view(f"i{codes.itemsize}")
        return b"", [((signs << 1) ^ (signs >> 8 * codes.itemsize - 1)).view(f"u{codes.itemsize}")]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        folded = streams[0].astype(f"u{dtype.itemsize}", copy=False)
        return ((folded >> 1) ^ -(folded & 1)).view(dtype)
