"""LZMA (Pavlov, the coder of 7-Zip (2001) and xz): repetitions, with range coding in adaptive contexts."""

import lzma
from typing import Any

import numpy as np

from distill.codecs import _bytes, codec

FILTERS: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 2**24}]
"""Not in the stream, which could ask for any amount of memory."""


@codec("lzma")
class Lzma:
    """A general compressor, to compare with."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _bytes.encode(codes, lambda data: lzma.compress(data, lzma.FORMAT_RAW, filters=FILTERS))

    def decode(self, data: bytes) -> np.ndarray:
        return _bytes.decode(data, _decompress, lzma.LZMAError)


def _decompress(data: bytes, size: int) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
    raw = decompressor.decompress(data, size + 1)
    return raw if decompressor.eof else b""
