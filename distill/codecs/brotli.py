"""Brotli (RFC 7932): repetitions, and contexts for frequencies."""

import brotli
import numpy as np

from distill.codecs import _bytes, codec

QUALITY = 11


@codec("brotli")
class Brotli:
    """A general compressor, to compare with."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _bytes.encode(codes, lambda data: brotli.compress(data, quality=QUALITY))

    def decode(self, data: bytes) -> np.ndarray:
        return _bytes.decode(data, _decompress, brotli.error)


def _decompress(data: bytes, size: int) -> bytes:
    decompressor = brotli.Decompressor()
    raw = decompressor.process(data, output_buffer_limit=size + 1)
    return raw if decompressor.is_finished() else b""
