"""What every coded stream begins with: a checksum, the type and the shape of what was coded."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf, prod

import numpy as np

from distill.errors import ArtifactError

TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
MOST_VALUES = 2**28
"""One tensor's worth; a stream that claims more is refused before memory is asked for."""
FREE, PER_BYTE = 2**16, 2**12
"""A stream of n bytes holds at most ``FREE + PER_BYTE * n`` values, or it is refused likewise. One that would be
shorter, of a constant, say, is padded."""
_limit: ContextVar[float] = ContextVar("limit", default=inf)


@contextmanager
def at_most(nbytes: int) -> Iterator[None]:
    """Refuse streams that claim to hold more, those within a chain too, before memory is asked for."""
    token = _limit.set(nbytes)
    try:
        yield
    finally:
        _limit.reset(token)


class Reader:
    """Takes a stream apart, piece by piece."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        """Number of bytes not taken yet."""
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise ArtifactError("a coded stream ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self) -> int:
        if self.at == len(self.data):
            raise ArtifactError("a coded stream ends too early")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ArtifactError("a coded stream holds a number that never ends")

    def signed(self, limit: int) -> int:
        """What `signed` wrote, if it is at most ``limit`` from 0."""
        value = self.number()
        value = value >> 1 if value % 2 == 0 else -(value + 1 >> 1)
        if abs(value) > limit:
            raise ArtifactError("a coded stream holds a number that is too large")
        return value

    def rest(self) -> bytes:
        return self.take(self.left)


def number(value: int) -> bytes:
    """A non-negative integer, seven bits to a byte, low bits first (LEB128): small ones take one byte."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def signed(value: int) -> bytes:
    """An integer as the non-negative one that is 0, 1, 2, 3, 4, ... for 0, -1, 1, -2, 2, ..."""
    return number(2 * value if value >= 0 else -2 * value - 1)


def seal(codes: np.ndarray, body: bytes) -> bytes:
    """The stream of ``codes`` whose values ``body`` holds."""
    head = b"".join(map(number, codes.shape))
    padding = -(-(codes.size - FREE) // PER_BYTE) - len(head) - len(body)
    padded = padding > 0
    if padded:
        head += number(padding) + bytes(padding)
    head = bytes([padded << 7 | TYPES.index(codes.dtype.name) << 4 | codes.ndim]) + head
    return zlib.crc32(head + body).to_bytes(4, "little") + head + body


def encode(codes: np.ndarray, write: Callable[[np.ndarray], bytes]) -> bytes:
    """Code the values of ``codes``, an array in C order, by ``write``; an empty array has no body.

    Raises:
        TypeError: ``codes`` are not integers, have more than 15 axes or more than 2**28 values.
    """
    if codes.dtype.name not in TYPES or codes.ndim > 15 or codes.size > MOST_VALUES:
        raise TypeError(f"codecs take up to 2**28 integers in up to 15 axes, not {codes.dtype.name} of {codes.shape}")
    native = np.ascontiguousarray(codes.astype(codes.dtype.newbyteorder("="), copy=False)).reshape(codes.shape)
    return seal(native, write(native) if codes.size else b"")


def decode(data: bytes, read: Callable[[Reader, np.dtype, tuple[int, ...]], np.ndarray]) -> np.ndarray:
    """The array that `encode` was given; ``read`` gets what ``write`` wrote, the type and the shape.

    Raises:
        ArtifactError: the stream is damaged.
    """
    reader = Reader(data)
    if zlib.crc32(data[4:]) != int.from_bytes(reader.take(4), "little"):
        raise ArtifactError("a coded stream is damaged: its checksum does not match")
    first = reader.byte()
    shape = tuple(reader.number() for _ in range(first & 15))
    # Beside an axis of 0, others could claim any size for free.
    size = prod(max(axis, 1) for axis in shape)
    dtype = np.dtype(TYPES[first >> 4 & 7])
    most = min(MOST_VALUES, _limit.get() // dtype.itemsize)
    if size > most or prod(shape) > FREE + PER_BYTE * len(data):
        raise ArtifactError(f"a coded stream of {len(data)} bytes claims the shape {shape}")
    if first >> 7:
        reader.take(reader.number())
    if not prod(shape):
        return np.empty(shape, dtype)
    return read(reader, dtype, shape).astype(dtype, copy=False).reshape(shape)
