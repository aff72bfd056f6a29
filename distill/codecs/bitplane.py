"""One array of zeros and ones for each bit."""

import numpy as np

from distill.codecs import Transform, codec
from distill.codecs._frame import Reader, signed
from distill.errors import ArtifactError


@codec("bitplane")
class Bitplane(Transform):
    """The bits of each value less the lowest one, from the least bit up; each plane has the tensor's shape."""

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        first, last = int(codes.min()), int(codes.max())
        offsets = codes.astype(np.uint64) - np.uint64(first % 2**64)
        bits = range((last - first).bit_length())
        return signed(first), [(offsets >> np.uint64(bit)).astype(np.uint8) & 1 for bit in bits]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        values = np.full(shape, head.signed(2**64) % 2**64, np.uint64)
        for bit, plane in enumerate(streams):
            if plane.shape != shape:
                raise ArtifactError("a coded stream is damaged: its bit planes differ in shape")
            values += plane.astype(np.uint64) << np.uint64(bit)
        return values.astype(dtype)
