"""Integers as the fewest bytes each, for compressors of bytes: eight to a byte where they are zeros and ones."""

from collections.abc import Callable
from math import prod

import numpy as np

from distill.codecs import _frame
from distill.codecs._frame import Reader, number, signed
from distill.errors import ArtifactError


def encode(codes: np.ndarray, compress: Callable[[bytes], bytes]) -> bytes:
    """The stream of ``codes``."""

    def write(codes: np.ndarray) -> bytes:
        first, span = int(codes.min()), int(codes.max()) - int(codes.min())
        offsets = codes.ravel().astype(np.uint64) - np.uint64(first % 2**64)
        if span <= 1:
            return signed(first) + number(0) + compress(np.packbits(offsets.astype(np.uint8)).tobytes())
        size = next(size for size in (1, 2, 4, 8) if span < 256**size)
        return signed(first) + number(size) + compress(offsets.astype(f"<u{size}").tobytes())

    return _frame.encode(codes, write)


def decode(data: bytes, decompress: Callable[[bytes, int], bytes], error: type[Exception]) -> np.ndarray:
    """The inverse of `encode`.

    Args:
        data: the stream.
        decompress: what ``compress`` gave and a number of bytes, to no more than these bytes.
        error: what ``decompress`` raises.

    Raises:
        ArtifactError: the stream is damaged.
    """

    def read(reader: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        first, size, count = reader.signed(2**64), reader.number(), prod(shape)
        if size not in (0, 1, 2, 4, 8) or size > dtype.itemsize:
            raise ArtifactError(f"a coded stream claims values of {size} bytes")
        length = size * count or -(-count // 8)
        try:
            raw = decompress(reader.rest(), length)
        except error as reason:
            raise ArtifactError(f"a coded stream is damaged: {reason}") from None
        if len(raw) != length:
            raise ArtifactError("a coded stream is damaged: it holds more or fewer values than it claims")
        kind = f"u{dtype.itemsize}"
        values = np.frombuffer(raw, f"<u{size}") if size else np.unpackbits(np.frombuffer(raw, np.uint8), count=count)
        return (values.astype(kind) + np.array(first % 256**dtype.itemsize, kind)).view(dtype)

    return _frame.decode(data, read)
