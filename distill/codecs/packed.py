"""As many bits per value as the range of values needs: what the streams of a transform are kept in without a coder."""

from math import prod

import numpy as np

from distill.codecs import _frame, codec
from distill.codecs._bits import pack_bits, unpack_bits
from distill.codecs._frame import Reader, signed
from distill.errors import ArtifactError


@codec("packed")
class Packed:
    """Fixed-width binary code."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _frame.encode(codes, _write)

    def decode(self, data: bytes) -> np.ndarray:
        return _frame.decode(data, _read)


def _write(codes: np.ndarray) -> bytes:
    first, last = int(codes.min()), int(codes.max())
    bits = (last - first).bit_length()
    offsets = codes.ravel().astype(np.uint64) - np.uint64(first % 2**64)
    return signed(first) + bytes([bits]) + pack_bits(offsets, bits)


def _read(reader: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    first, bits = reader.signed(2**64), reader.byte()
    if bits > 64:
        raise ArtifactError("a coded stream claims values of more than 64 bits")
    return unpack_bits(reader.rest(), prod(shape), bits) + np.uint64(first % 2**64)
