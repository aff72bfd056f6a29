"""The part of a tensor that is coded: rows and channels of zeros alone, as pruned filters leave them, are left out."""

import zlib
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from distill.codecs import _native
from distill.codecs._frame import Reader, number
from distill.errors import ArtifactError

FEWEST = 1 / 16
"""Of all weights, so many have to be left out."""
SAVED = 1 / 1024
"""Bits that a stream may be longer for each weight that need not be decoded."""


@dataclass(frozen=True)
class Part:
    """Which rows, along the first axis, and which channels, along the second, of a tensor of two or more axes."""

    shape: tuple[int, ...]
    """Of the whole."""
    kept: np.ndarray
    """bool: of each row, then of each channel."""

    @classmethod
    def of(cls, symbols: np.ndarray, zero: int) -> "Part | None":
        """What is left of ``symbols`` without rows and channels that are all ``zero``; None if it is about as much."""
        if symbols.ndim < 2:
            return None
        there = (symbols != zero).reshape(*symbols.shape[:2], -1).any(2)
        rows, channels = there.any(1), there.any(0)
        if 1 - rows.mean() * channels.mean() < FEWEST:
            return None
        return cls(symbols.shape, np.concatenate([rows, channels]))

    @property
    def rows(self) -> np.ndarray:
        """Their positions."""
        return np.flatnonzero(self.kept[: self.shape[0]])

    @property
    def channels(self) -> np.ndarray:
        """Their positions."""
        return np.flatnonzero(self.kept[self.shape[0] :])

    @cached_property
    def shape_left(self) -> tuple[int, ...]:
        """Of the part."""
        return (len(self.rows), len(self.channels), *self.shape[2:])

    @property
    def cost(self) -> float:
        """Bytes of the description, less what leaving out the others is worth."""
        return len(self.to_bytes()) - (prod(self.shape) - prod(self.shape_left)) * SAVED / 8

    def taken(self, symbols: np.ndarray) -> np.ndarray:
        """The part of the whole."""
        return symbols[np.ix_(self.rows, self.channels)]

    def spread(self, symbols: np.ndarray, zero: int) -> np.ndarray:
        """The whole, flat, of the part's symbols."""
        whole = np.full(self.shape, zero, np.uint8)
        rows, channels = self.rows, self.channels
        if library := _native.library():
            size = len(symbols) // (len(rows) * len(channels))
            library.spread(
                *_native.pointers(symbols, rows), len(rows), *_native.pointers(channels), len(channels),
                self.shape[1], size, *_native.pointers(whole),
            )  # fmt: skip
        else:
            whole[np.ix_(rows, channels)] = symbols.reshape(self.shape_left)
        return whole.ravel()

    def to_bytes(self) -> bytes:
        deflate = zlib.compressobj(9, wbits=-15)
        packed = deflate.compress(np.packbits(self.kept).tobytes()) + deflate.flush()
        return number(len(packed)) + packed

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...]) -> "Part":
        """Of a tensor of this shape.

        Raises:
            ArtifactError: the stream cannot be one of these.
        """
        if len(shape) < 2:
            raise ArtifactError("a coded stream leaves out rows of what has none")
        count = shape[0] + shape[1]
        size = -(-count // 8)
        try:
            raw = zlib.decompressobj(wbits=-15).decompress(reader.take(reader.number()), size)
        except zlib.error as error:
            raise ArtifactError(f"a coded stream is damaged: {error}") from None
        kept = np.unpackbits(np.frombuffer(raw, np.uint8))[:count].astype(bool)
        if len(raw) != size or not kept[: shape[0]].any() or not kept[shape[0] :].any():
            raise ArtifactError("a coded stream leaves out more than all of its rows")
        return cls(shape, kept)
