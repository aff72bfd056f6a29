"""Integers as symbols of a small alphabet with a short table of how frequent each is.

Values are sorted into bins of 2**low neighbours: an entropy coder codes the bin, the low bits follow as they are. The
most frequent value has a symbol of its own, so that the zeros of a pruned layer stay cheap. ``low`` is what makes table
and data shortest together (Rissanen: Modeling by shortest data description, Automatica 14, 1978): a large tensor earns
a symbol for every value, one of a hundred values gets a table of a few bytes. All arithmetic is on integers, and so
the same on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distill.codecs._bits import pack_bits, unpack_bits
from distill.codecs._frame import Reader, number
from distill.errors import ArtifactError

Pack = Callable[[np.ndarray, np.ndarray], bytes]
"""Symbols, each from 0 to k - 1, and the weights of those k, to bytes."""
Unpack = Callable[[bytes, np.ndarray, int], np.ndarray]
"""Bytes, weights and the number of symbols, to symbols."""

MOST_BINS = 4096
LEVELS = np.array([0] + [(8 + mantissa) << exponent for exponent in range(29) for mantissa in range(8)], np.int64)
"""A frequency is kept in one byte: the position of the nearest of these, at most 6 % off."""


@dataclass(frozen=True)
class Alphabet:
    """Which values share a symbol, and how frequent each symbol is."""

    first: int
    """The lowest value."""
    low: int
    """Number of low bits of ``value - first`` that are not part of the symbol."""
    peak: int
    """``value - first`` of the value with a symbol of its own; counts only if ``low`` is above 0."""
    levels: np.ndarray
    """uint8, a position in LEVELS for each bin, and the peak's after them."""

    @property
    def weights(self) -> np.ndarray:
        """Of the symbols in use."""
        return LEVELS[self.levels[self.levels > 0]].astype(np.float64)

    def to_bytes(self) -> bytes:
        sign = self.first < 0
        head = number(2 * abs(self.first) + sign) + bytes([self.low])
        return head + (number(self.peak) if self.low else b"") + number(len(self.levels)) + self.levels.tobytes()

    @classmethod
    def read(cls, reader: Reader) -> "Alphabet":
        first, sign = divmod(reader.number(), 2)
        low = reader.byte()
        peak = reader.number() if low else 0
        levels = np.frombuffer(reader.take(reader.number()), np.uint8)
        if low > 63 or peak >= 2**64 or not levels.any() or levels.max() >= len(LEVELS):
            raise ArtifactError("a coded stream has an impossible table")
        return cls(-first if sign else first, low, peak, levels)

    def symbols(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in ``levels``, and which values have low bits to keep."""
        bins = (offsets >> np.uint64(self.low)).astype(np.int64)
        if not self.low:
            return bins, np.zeros(len(bins), bool)
        peaks = offsets == self.peak
        return np.where(peaks, len(self.levels) - 1, bins), ~peaks

    def offsets(self, positions: np.ndarray, reader: Reader) -> np.ndarray:
        """The inverse of `symbols`; low bits come from the reader."""
        offsets = positions.astype(np.uint64) << np.uint64(self.low)
        if self.low:
            ordinary = positions < len(self.levels) - 1
            offsets[~ordinary] = self.peak
            offsets[ordinary] |= unpack_bits(reader.rest(), int(ordinary.sum()), self.low)
        return offsets


def write(codes: np.ndarray, pack: Pack) -> bytes:
    """Table, symbols and low bits of an array that is not empty."""
    codes = codes.ravel()
    first = int(codes.min())
    offsets = codes.astype(np.uint64) - np.uint64(first % 2**64)  # modulo 2**64, so right for every type
    alphabet = _fit(first, offsets)
    positions, ordinary = alphabet.symbols(offsets)
    rank = np.cumsum(alphabet.levels > 0) - 1
    body = pack(rank[positions].astype(np.int32), alphabet.weights) if len(alphabet.weights) > 1 else b""
    return alphabet.to_bytes() + number(len(body)) + body + pack_bits(offsets[ordinary], alphabet.low)


def read(reader: Reader, count: int, unpack: Unpack) -> np.ndarray:
    """The inverse of `write`, as integers modulo 2**64."""
    alphabet = Alphabet.read(reader)
    body = reader.take(reader.number())
    used = np.flatnonzero(alphabet.levels)
    symbols = unpack(body, alphabet.weights, count) if len(used) > 1 else np.zeros(count, np.int64)
    return alphabet.offsets(used[symbols], reader) + np.uint64(alphabet.first % 2**64)


def _fit(first: int, offsets: np.ndarray) -> Alphabet:
    """The bin size with the shortest table and data."""
    span = int(offsets.max())
    low = max(0, (span + 1).bit_length() - MOST_BINS.bit_length())
    counts = np.bincount((offsets >> np.uint64(low)).astype(np.int64))
    peak = int(counts.argmax()) << low
    peaks = int(np.count_nonzero(offsets == peak))
    best: tuple[float, Alphabet] | None = None
    while True:
        table = _with_peak(counts, peak >> low, peaks) if low else counts
        bits = _bits(table) + low * (len(offsets) - peaks) + 8 * len(table)
        if best is None or bits < best[0]:
            levels = np.searchsorted((LEVELS[1:] + LEVELS[:-1]) / 2, 8 * table).astype(np.uint8)
            best = bits, Alphabet(first, low, peak, levels)
        if len(counts) == 1 or low == 63:
            return best[1]
        counts = np.pad(counts, (0, len(counts) % 2)).reshape(-1, 2).sum(1)
        low += 1


def _with_peak(counts: np.ndarray, at: int, peaks: int) -> np.ndarray:
    table = np.append(counts, peaks)
    table[at] -= peaks
    return table


def _bits(counts: np.ndarray) -> float:
    """What an ideal entropy coder needs for symbols of these counts."""
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())
