"""A bit for each position, set where the value is not zero, and the values that are not zero."""

import numpy as np

from distill.codecs import Transform, codec
from distill.codecs._frame import Reader


@codec("bitmap")
class Bitmap(Transform):
    """One bit per position, whatever the sparsity."""

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        present = codes != 0
        return b"", [present.astype(np.uint8), codes[present]]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        present, values = streams
        codes = np.zeros(shape, dtype)
        codes[present.reshape(shape) != 0] = values
        return codes
