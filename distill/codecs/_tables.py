"""Tables of frequencies made from a few parameters, in integers alone and so the same on every machine.

A symbol ``s`` of magnitude ``m`` in context ``c`` has a cost in bits, linear in features of m: whether it is zero,
log2(1 + m), m and m**2. Together they come near Laplace, Gauss and what lies between, pruned around zero or not. What
all contexts share is added: how costs differ by sign, and perhaps a correction for each symbol.
"""

import zlib
from dataclasses import dataclass
from functools import cache, lru_cache
from math import isqrt

import numpy as np

from distill.codecs._frame import Reader, number, signed
from distill.errors import ArtifactError

SLOTS = 2**16
MOST_CONTEXTS = 51
MOST_SYMBOLS = 256
STEPS = 64
"""Costs are in units of 1/64 bit."""


@dataclass(frozen=True)
class Alphabet:
    """Symbols 0 to ``size - 1`` and what their magnitudes are."""

    size: int
    """2 to 256."""
    zero: int
    """The symbol of magnitude 0."""
    centre: int
    """Twice the symbol around which magnitudes grow."""

    def magnitudes(self) -> np.ndarray:
        """uint8, (256,): of each symbol, at least 1 except for ``zero``."""
        sizes = np.abs(2 * np.arange(MOST_SYMBOLS) - self.centre) + 1 >> 1
        sizes = sizes.clip(1, 255).astype(np.uint8)
        sizes[self.zero] = 0
        return sizes

    def signs(self) -> np.ndarray:
        """int8, (256,): -1, 0 or 1, of each symbol."""
        signs = np.sign(2 * np.arange(MOST_SYMBOLS) - self.centre).astype(np.int8)
        signs[self.zero] = 0
        return signs

    def features(self) -> np.ndarray:
        """int64, (size, up to 6), in units of 1/256: up to four of the magnitude, then two with its sign."""
        return _features(self)


@lru_cache(maxsize=64)
def _features(alphabet: Alphabet) -> np.ndarray:
    sizes = alphabet.magnitudes()[: alphabet.size].astype(np.int64)
    largest = int(sizes.max())
    logarithms = _logarithms()[sizes]
    even = [
        np.where(sizes > 0, 256, 0),
        logarithms * 256 // logarithms.max(),
        sizes * 256 // largest,
        sizes**2 * 256 // largest**2,
    ]
    signs = alphabet.signs()[: alphabet.size].astype(np.int64)
    features = np.stack([*even[: min(4, largest)], signs * 256, signs * even[2]], 1)
    features.flags.writeable = False
    return features


@dataclass(frozen=True)
class Tables:
    """One table per context, or five: one for each of `_neighbours.LEVELS`, by how surely which sign is expected."""

    alphabet: Alphabet
    even: np.ndarray
    """int64, (contexts, up to 4): costs of the features of magnitude, in units of 1/16 bit."""
    odd: np.ndarray
    """int64, (2,): of those with a sign."""
    tilts: np.ndarray
    """int64, (2, 2) or (0, 2): what is added to ``odd`` at levels 1 and 2, and taken from it at -1 and -2."""
    corrections: np.ndarray
    """int8, (size,): of each symbol, in units of 1/8 bit."""

    def frequencies(self) -> np.ndarray:
        """uint32, (tables, 256): positive for symbols of the alphabet; each row's sum is 2**16."""
        features, count = self.alphabet.features(), self.even.shape[1]
        costs = ((self.even @ features[:, :count].T)[:, None] + self.odd_costs() @ features[:, count:].T) >> 6
        costs = costs.reshape(-1, self.alphabet.size) + 8 * self.corrections.astype(np.int64)
        costs -= costs.min(1, keepdims=True)
        weights = _powers()[costs % STEPS] >> np.minimum(costs // STEPS, 63)
        frequencies = np.maximum(1, weights * SLOTS // weights.sum(1, keepdims=True))
        rows, largest = np.arange(len(frequencies)), frequencies.argmax(1)
        frequencies[rows, largest] += SLOTS - frequencies.sum(1)
        padded = np.zeros((len(frequencies), MOST_SYMBOLS), np.uint32)
        padded[:, : self.alphabet.size] = frequencies
        return padded

    def odd_costs(self) -> np.ndarray:
        """int64, (levels, 2): of the features with a sign."""
        return self.odd + np.concatenate([-self.tilts[::-1], np.zeros((1, 2), np.int64), self.tilts])

    def to_bytes(self) -> bytes:
        steps = np.diff(self.even, axis=0, prepend=0).ravel()
        numbers = b"".join(signed(int(value)) for value in [*steps, *self.odd, *self.tilts.ravel()])
        if not self.corrections.any():
            return numbers + number(0)
        deflate = zlib.compressobj(9, wbits=-15)
        packed = deflate.compress(self.corrections.tobytes()) + deflate.flush()
        return numbers + number(len(packed)) + packed

    @classmethod
    def read(cls, reader: Reader, alphabet: Alphabet, contexts: int, signed: bool) -> "Tables":
        count = alphabet.features().shape[1] - 2
        steps = [reader.signed(2**20) for _ in range(contexts * count)]
        odd = np.array([reader.signed(2**20) for _ in range(2)])
        tilts = np.array([reader.signed(2**20) for _ in range(4 * signed)], np.int64).reshape(-1, 2)
        packed = reader.take(reader.number())
        try:
            raw = zlib.decompressobj(wbits=-15).decompress(packed, alphabet.size)
        except zlib.error as error:
            raise ArtifactError(f"a coded stream is damaged: {error}") from None
        if len(raw) not in (alphabet.size, 0):
            raise ArtifactError("a coded stream has an impossible table")
        corrections = np.frombuffer(raw or bytes(alphabet.size), np.int8)
        return cls(alphabet, np.cumsum(np.reshape(steps, (contexts, count)), 0), odd, tilts, corrections)


@cache
def _powers() -> np.ndarray:
    """2**(40 - k / 64) for k from 0 to 63, rounded down: whole roots of whole powers."""
    powers = []
    for k in range(STEPS):
        power = 2 ** (40 * STEPS - k)
        for _ in range(STEPS.bit_length() - 1):
            power = isqrt(power)
        powers.append(power)
    return np.array(powers)


@cache
def _logarithms() -> np.ndarray:
    """log2(1 + m) for m from 0 to 255, in units of 1/16, rounded down."""
    return np.array([((1 + size) ** 16).bit_length() - 1 for size in range(MOST_SYMBOLS)])
