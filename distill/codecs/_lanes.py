"""Interleaved range asymmetric numeral systems (Duda, arXiv:1311.2540) with a table per context, in NumPy.

Lane ``l`` codes rows ``l``, ``l + lanes``, ... and is one column behind lane ``l - 1``: whatever is above and left of a
weight has been decoded before it, and no lane waits for another. ``loops.cpp`` does the same, compiled.
"""

import ctypes
from dataclasses import dataclass

import numpy as np

from distill.codecs import _native
from distill.codecs._neighbours import LEVELS, MEMORY, NAMES, RATES
from distill.errors import ArtifactError

LOW = 2**32
"""States are in [2**32, 2**64); a lane alone may have a lower one once no words are left."""
TOP = 2**47
"""Larger estimates count as this."""
PER_OCTAVE = 16
BUCKETS = 48 * PER_OCTAVE
"""Estimates are sorted into so many buckets, each a sixteenth of a power of two wide; each belongs to a context."""
MOST_LANES = 64


@dataclass(frozen=True)
class Layout:
    """How a flat tensor is seen, and how its weights' magnitudes are estimated: see `_neighbours`."""

    count: int
    width: int
    period: int
    line: int
    lanes: int
    prior: int
    weights: tuple[int, ...]

    @property
    def start(self) -> int:
        """Each lane's state when nothing is coded. From 0, a lane alone saves four bytes."""
        return 0 if self.lanes == 1 else LOW

    @property
    def rows(self) -> int:
        return -(-self.count // self.width)

    @property
    def steps(self) -> int:
        return -(-self.rows // self.lanes) * self.width + self.lanes - 1

    def places(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The lanes at work in this step, and the positions of their weights."""
        numbers = np.arange(max(0, step + self.lanes - self.steps), min(self.lanes, step + 1))
        group, column = np.divmod(step - numbers, self.width)
        at = (group * self.lanes + numbers) * self.width + column
        return numbers[at < self.count], at[at < self.count]

    def structure(self) -> "_Layout":
        plain = (self.count, self.width, self.period, self.line, self.lanes, self.prior)
        return _Layout(*plain, (ctypes.c_int64 * len(NAMES))(*self.weights))


class _Layout(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "width", "period", "line", "lanes", "prior")),
        ("weights", ctypes.c_int64 * len(NAMES)),
    ]


def buckets(estimates: np.ndarray) -> np.ndarray:
    """int64: the bucket of each estimate, which is a non-negative integer."""
    fractions, exponents = np.frexp(np.minimum(estimates + 1, TOP).astype(np.float64))  # exact
    return exponents * PER_OCTAVE + (fractions * 2 * PER_OCTAVE).astype(np.int64) - 2 * PER_OCTAVE


def encode(
    layout: Layout, contexts: np.ndarray, frequencies: np.ndarray, symbols: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Final states (lanes,) uint64, and words uint32 in the order of decoding.

    Args:
        layout: of ``symbols``.
        contexts: uint8, of each symbol: a row of ``frequencies``.
        frequencies: uint32, (contexts, symbols); each context's sum is 2**16.
        symbols: uint8, flat.
    """
    states = np.full(layout.lanes, layout.start, np.uint64)
    spans = _spans(frequencies)
    if library := _native.library():
        words = np.empty(layout.count + layout.lanes, np.uint32)
        length = library.encode(
            ctypes.byref(layout.structure()), *_native.pointers(contexts, spans, symbols), len(words),
            *_native.pointers(states, words),
        )  # fmt: skip
        return states, words[len(words) - length :].copy()
    written = []
    for step in reversed(range(layout.steps)):
        numbers, at = layout.places(step)
        span = spans[contexts[at], symbols[at]]
        frequency, begin, state = (span >> 16).astype(np.uint64), span & 0xFFFF, states[numbers]
        full = state >= frequency << np.uint64(48)
        written.append(state[full].astype(np.uint32))
        state = np.where(full, state >> np.uint64(32), state)
        states[numbers] = (state // frequency << np.uint64(16)) + state % frequency + begin
    return states, np.concatenate(written[::-1])


def decode(
    layout: Layout,
    contexts: np.ndarray,
    magnitudes: np.ndarray,
    signs: np.ndarray,
    frequencies: np.ndarray,
    states: np.ndarray,
    words: np.ndarray,
) -> np.ndarray:
    """The symbols, flat, uint8. ``states`` are changed.

    Args:
        layout: of the symbols.
        contexts: uint8, of each bucket of estimates, where no sign is expected.
        magnitudes: uint8, of each of 256 symbols.
        signs: int8, likewise; all 0 if they make no difference.
        frequencies: as they were when encoding.
        states: as `encode` left them.
        words: as `encode` wrote them.

    Raises:
        ArtifactError: states or words are none that `encode` gives.
    """
    symbols = np.zeros(layout.count, np.uint8)
    columns = np.full(layout.width, layout.prior, np.int32)
    if library := _native.library():
        tables = RATES, contexts, magnitudes, signs, LEVELS, _coarse(frequencies), _spans(frequencies), words
        ends = states, columns, symbols
        read = library.decode(
            ctypes.byref(layout.structure()), *_native.pointers(*tables), len(words), *_native.pointers(*ends)
        )
    else:
        read = _decode(layout, contexts, magnitudes, signs, frequencies, states, words, columns, symbols)
    if read != len(words) or (states != layout.start).any():
        raise ArtifactError("a coded stream is damaged: it does not end where its values do")
    return symbols


def _decode(layout, contexts, magnitudes, signs, frequencies, states, words, columns, symbols) -> int:  # type: ignore[no-untyped-def]
    """The number of words read; where there are too few, states end wrong."""
    table = np.repeat(np.arange(frequencies.size, dtype=np.int32) % 256, frequencies.ravel()).astype(np.uint8)
    ends = np.cumsum(frequencies, 1, dtype=np.uint32)
    scaled = magnitudes.astype(np.int64) << 16
    slow, fast, left = (np.full(layout.lanes, layout.prior, np.int64) for _ in range(3))
    read = 0
    for step in range(layout.steps):
        numbers, at = layout.places(step)
        row, column = np.divmod(at, layout.width)
        begin = numbers[column == 0]
        slow[begin] = fast[begin] = left[begin] = layout.prior
        mean = columns[column].astype(np.int64)
        up = np.where(row > 0, scaled[symbols[at - layout.width]], layout.prior)
        channel = np.where(column >= layout.period, scaled[symbols[at - layout.period]], layout.prior)
        both = slow[numbers] * mean >> layout.prior.bit_length()
        heard = (slow[numbers], fast[numbers], left[numbers], mean, up, channel, both)
        total = sum(weight * values for weight, values in zip(layout.weights, heard, strict=True))
        context = contexts[buckets(total)].astype(np.int64) + _levels(layout, signs, symbols, at)
        state = states[numbers]
        slot = (state & np.uint64(0xFFFF)).astype(np.int64)
        symbol = table[(context << 16) + slot]
        frequency = frequencies[context, symbol]
        state = frequency * (state >> np.uint64(16)) + slot.astype(np.uint64) - ends[context, symbol] + frequency
        low = np.flatnonzero(state < LOW)
        low = low[: len(words) - read]
        state[low] = state[low] << np.uint64(32) | words[read : read + len(low)]
        read += len(low)
        states[numbers], symbols[at] = state, symbol
        magnitude = scaled[symbol]
        slow[numbers] += (magnitude - slow[numbers]) * RATES[np.minimum(column, MEMORY - 1)] >> 15
        fast[numbers] += magnitude - fast[numbers] >> 2
        left[numbers] = magnitude
        columns[column] = mean + ((magnitude - mean) * RATES[np.minimum(row, MEMORY - 1)] >> 15)
    return read


def _levels(layout: Layout, signs: np.ndarray, symbols: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Which signs the neighbours of these positions make likely: see `_neighbours.levels`."""
    row, column = np.divmod(at, layout.width)
    before, above, channel, up = (
        np.where(there, signs[symbols[at - distance]], 0)
        for there, distance in (
            (column >= 1, 1),
            (column >= layout.line, layout.line),
            (column >= layout.period, layout.period),
            (row > 0, layout.width),
        )
    )
    return LEVELS[2 * (before + above) + channel + up + 6]


def _spans(frequencies: np.ndarray) -> np.ndarray:
    """uint32, (contexts, 256): frequency and first slot of each symbol, 16 bits each."""
    return frequencies << 16 | (np.cumsum(frequencies, 1, dtype=np.uint32) - frequencies) & 0xFFFF


def _coarse(frequencies: np.ndarray) -> np.ndarray:
    """uint16, (contexts, 4096): the symbol of the first of each 16 slots, with bit 8 set unless all have it."""
    table = np.empty((len(frequencies), 4096), np.uint16)
    for row, ends in zip(table, np.cumsum(frequencies, 1, dtype=np.int64), strict=True):
        # So many symbols end before a cell begins, and before it ends.
        first, last = (np.bincount(bounds, minlength=4097).cumsum()[:-1] for bounds in (ends + 15 >> 4, ends >> 4))
        row[:] = first.clip(max=255) | (first != last) << 8
    return table
