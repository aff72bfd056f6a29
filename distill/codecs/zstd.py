"""Zstandard (RFC 8878): finds repetitions as well as frequencies, and is the quickest to decode."""

from math import prod

import numpy as np
import zstandard

from distill.codecs import _frame, codec
from distill.codecs._frame import Reader
from distill.errors import ArtifactError

LEVEL = 19


@codec("zstd")
class Zstd:
    """A general compressor, to compare with."""

    def encode(self, codes: np.ndarray) -> bytes:
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=False)
        return _frame.encode(codes, lambda values: compressor.compress(values.tobytes()))

    def decode(self, data: bytes) -> np.ndarray:
        return _frame.decode(data, _read)


def _read(reader: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    size = prod(shape) * dtype.itemsize
    try:
        values = zstandard.ZstdDecompressor().decompress(reader.rest(), max_output_size=size)
    except zstandard.ZstdError as error:
        raise ArtifactError(f"a coded stream is damaged: {error}") from None
    if len(values) != size:
        raise ArtifactError("a coded stream is damaged: it holds fewer values than it claims")
    return np.frombuffer(values, dtype)
