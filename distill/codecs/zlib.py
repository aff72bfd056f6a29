"""Deflate (RFC 1951): repetitions and Huffman's code, as in zip and PNG."""

import zlib

import numpy as np

from distill.codecs import _bytes, codec

LEVEL = 9


@codec("zlib")
class Zlib:
    """A general compressor, to compare with."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _bytes.encode(codes, lambda data: zlib.compress(data, LEVEL))

    def decode(self, data: bytes) -> np.ndarray:
        return _bytes.decode(data, _decompress, zlib.error)


def _decompress(data: bytes, size: int) -> bytes:
    decompressor = zlib.decompressobj()
    raw = decompressor.decompress(data, size + 1)
    return raw if decompressor.eof else b""
