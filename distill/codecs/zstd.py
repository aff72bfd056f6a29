"""Zstandard (RFC 8878): finds repetitions as well as frequencies, and is the quickest to decode of its kind."""

import numpy as np
import zstandard

from distill.codecs import _bytes, codec

LEVEL = 19


@codec("zstd")
class Zstd:
    """A general compressor, to compare with."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _bytes.encode(codes, zstandard.ZstdCompressor(level=LEVEL, write_content_size=False).compress)

    def decode(self, data: bytes) -> np.ndarray:
        return _bytes.decode(data, _decompress, zstandard.ZstdError)


def _decompress(data: bytes, size: int) -> bytes:
    # As much as the frame says is allocated, whatever the limit.
    if zstandard.frame_content_size(data) not in (-1, size):
        return b""
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
