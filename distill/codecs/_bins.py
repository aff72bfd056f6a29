"""Integers of any size cut into symbols of at most 8 bits and low bits that are kept as they are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distill.codecs._bits import unpack_bits
from distill.codecs._frame import Reader, number, signed
from distill.codecs._tables import MOST_SYMBOLS, Alphabet
from distill.errors import ArtifactError


@dataclass(frozen=True)
class Bins:
    """Bins of ``2**low`` neighbours, each a symbol. Unless ``low`` is 0, the most frequent value has a symbol of its
    own, the last, without low bits: the zeros of a pruned layer stay cheap."""

    first: int
    """The lowest value."""
    low: int
    peak: int
    """The most frequent value, less ``first``."""
    size: int
    """Number of symbols, 1 to 256."""

    @classmethod
    def of(cls, values: np.ndarray) -> "Bins":
        """For a flat array that is not empty."""
        first, span = int(values.min()), int(values.max()) - int(values.min())
        low = next(low for low in range(64) if (span >> low) + 1 + (low > 0) <= MOST_SYMBOLS)
        if low:
            found, counts = np.unique(values, return_counts=True)
            peak = int(found[counts.argmax()]) - first
        else:
            peak = int(np.bincount(_offsets(values, first)).argmax())
        return cls(first, low, peak, (span >> low) + 1 + (low > 0))

    def split(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Symbols (uint8), and those values, as uint64, whose low bits are to be kept."""
        offsets = _offsets(values, self.first)
        if not self.low:
            return offsets.astype(np.uint8), np.empty(0, np.uint64)
        peaks = offsets == self.peak
        symbols = (offsets >> offsets.dtype.type(self.low)).astype(np.uint8)
        symbols[peaks] = self.size - 1
        return symbols, offsets[~peaks].astype(np.uint64)

    def join(self, symbols: np.ndarray, low: bytes, dtype: np.dtype) -> np.ndarray:
        """The values; ``symbols`` may be changed.

        Raises:
            ArtifactError: ``low`` is not as long as the low bits of the symbols.
        """
        kind = _unsigned(dtype)
        if not self.low and kind.itemsize == 1:  # in place: this is what weights are, and their memory counts
            if low:
                raise ArtifactError("a coded stream is damaged: it has low bits that nothing needs")
            symbols += kind.type(self.first % 256)
            return symbols.view(dtype)
        starts = [self.first + (symbol << self.low) for symbol in range(MOST_SYMBOLS)]
        if self.low:
            starts[self.size - 1] = self.first + self.peak
        values = np.array([start % 256**dtype.itemsize for start in starts], kind)[symbols]
        ordinary = symbols != self.size - 1 if self.low else np.zeros(0, bool)
        kept = unpack_bits(low, int(ordinary.sum()), self.low)
        if self.low:
            values[ordinary] += kept.astype(kind)
        return values.view(dtype)

    @property
    def zero(self) -> int:
        """The symbol of the most frequent value; known to the encoder alone unless there are low bits."""
        return self.size - 1 if self.low else self.peak

    def alphabets(self, symbols: np.ndarray) -> Iterator[Alphabet]:
        """What may be a weight's magnitude: how far it is from the most frequent value or, where that is a code apart
        from the others, as `cluster` has one for zero, from the middle of these."""
        zero = self.zero
        yield Alphabet(self.size, zero, 2 * (self.peak >> self.low))
        if zero in (0, self.size - 1) and self.size > 3 and not self.low:
            others = symbols[symbols != zero]
            yield Alphabet(self.size, zero, 2 * int(np.median(others)) + (zero == 0))

    def to_bytes(self) -> bytes:
        peak = number(self.peak) if self.low else b""
        return signed(self.first) + bytes([self.low, self.size - 1]) + peak

    @classmethod
    def read(cls, reader: Reader) -> "Bins":
        first, low, size = reader.signed(2**64), reader.byte(), reader.byte() + 1
        if low > 63:
            raise ArtifactError("a coded stream has an impossible table")
        return cls(first, low, reader.number() if low else 0, size)


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def _offsets(values: np.ndarray, first: int) -> np.ndarray:
    """``values - first``, unsigned and of the same size, so that nothing overflows."""
    kind = _unsigned(values.dtype)
    return values.view(kind) - kind.type(first % 256**kind.itemsize)
