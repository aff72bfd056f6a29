"""Interleaved range asymmetric numeral systems (Duda, arXiv:1311.2540) with a table per context, in NumPy.

Lane ``l`` codes rows ``l``, ``l + lanes``, ... and is one column behind lane ``l - 1``: whatever is above and left of a
weight has been decoded before it, and no lane waits for another. Lanes take turns with the coder's states: the more of
both, the faster is decoding, but a state takes eight bytes. ``loops.cpp`` does the same, compiled.
"""

import ctypes
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from distill.codecs import _native
from distill.codecs._neighbours import LEVELS, MEMORY, NAMES, RATES
from distill.codecs._tables import SLOTS, Alphabet
from distill.errors import ArtifactError

LOW = 2**32
"""States are in [2**32, 2**64); one alone may be lower once no words are left."""
TOP = 2**47
"""Larger estimates count as this."""
PER_OCTAVE = 16
BUCKETS = 48 * PER_OCTAVE
"""Estimates are sorted into so many buckets, each a sixteenth of a power of two wide; each belongs to a context."""
MOST_LANES = 32
PLACES = 8
"""For the tables of a bucket, of which there are five where signs count."""
CELLS = 1024
"""Of slots, in which the compiled decoder begins to look for a symbol."""
BESIDE = 64
"""Vectors of lanes reach so many values beyond the last."""


@dataclass(frozen=True)
class Layout:
    """How a flat tensor is seen, and how its weights' magnitudes are estimated: see `_neighbours`."""

    count: int
    width: int
    period: int
    line: int
    lanes: int
    states: int
    """At most as many as lanes."""
    prior: int
    weights: tuple[int, ...]

    @property
    def start(self) -> int:
        """Each state when nothing is coded. From 0, one alone saves four bytes."""
        return 0 if self.states == 1 else LOW

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

    def turns(self, numbers: np.ndarray) -> list[slice]:
        """Which of these lanes, in ascending order, use different states and so are coded at once."""
        bounds = np.searchsorted(numbers, np.arange(0, self.lanes + self.states, self.states))
        return [slice(first, last) for first, last in pairwise(bounds) if first < last]

    def structure(self) -> "_Layout":
        plain = (self.count, self.width, self.period, self.line, self.lanes, self.states, self.prior)
        return _Layout(*plain, (ctypes.c_int64 * len(NAMES))(*self.weights))


class _Layout(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "width", "period", "line", "lanes", "states", "prior")),
        ("weights", ctypes.c_int64 * len(NAMES)),
    ]


def buckets(estimates: np.ndarray) -> np.ndarray:
    """int64: the bucket of each estimate, which is a non-negative integer."""
    fractions, exponents = np.frexp(np.minimum(estimates + 1, TOP).astype(np.float64))  # exact
    return exponents * PER_OCTAVE + (fractions * 2 * PER_OCTAVE).astype(np.int64) - 2 * PER_OCTAVE


def encode(
    layout: Layout, contexts: np.ndarray, frequencies: np.ndarray, symbols: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Final states (states,) uint64, and words uint32 in the order of decoding.

    Args:
        layout: of ``symbols``.
        contexts: uint8, of each symbol: a row of ``frequencies``.
        frequencies: uint32, (contexts, symbols); each context's sum is 2**16.
        symbols: uint8, flat.
    """
    states = np.full(layout.states, layout.start, np.uint64)
    spans = _spans(frequencies)
    if library := _native.library():
        words = np.empty(layout.count + layout.states, np.uint32)
        length = library.encode(
            ctypes.byref(layout.structure()), *_native.pointers(contexts, spans, symbols), len(words),
            *_native.pointers(states, words),
        )  # fmt: skip
        return states, words[len(words) - length :].copy()
    written = []
    for step in reversed(range(layout.steps)):
        numbers, at = layout.places(step)
        for turn in reversed(layout.turns(numbers)):
            span, used = spans[contexts[at[turn]], symbols[at[turn]]], numbers[turn] % layout.states
            frequency, begin, state = (span >> 16).astype(np.uint64), span & 0xFFFF, states[used]
            full = state >= frequency << np.uint64(48)
            written.append(state[full].astype(np.uint32))
            state = np.where(full, state >> np.uint64(32), state)
            states[used] = (state // frequency << np.uint64(16)) + state % frequency + begin
    return states, np.concatenate(written[::-1])


def decode(
    layout: Layout,
    alphabet: Alphabet,
    contexts: np.ndarray,
    frequencies: np.ndarray,
    states: np.ndarray,
    words: np.ndarray,
) -> np.ndarray:
    """The symbols, flat, uint8. ``states`` are changed.

    Args:
        layout: of the symbols.
        alphabet: of the symbols.
        contexts: uint8, (BUCKETS, 1 or 5): the table of each bucket of estimates, by which sign is expected if signs
            count.
        frequencies: as they were when encoding.
        states: as `encode` left them.
        words: as `encode` wrote them.

    Raises:
        ArtifactError: states or words are none that `encode` gives.
    """
    library = _native.library()
    run = _decode if library is None else partial(_decode_compiled, library)
    symbols, read = run(layout, alphabet, contexts, frequencies, states, words)
    if read != len(words) or (states != layout.start).any():
        raise ArtifactError("a coded stream is damaged: it does not end where its values do")
    return symbols


def _decode_compiled(library, layout, alphabet, contexts, frequencies, states, words) -> tuple[np.ndarray, int]:  # type: ignore[no-untyped-def]
    signed = contexts.shape[1] > 1
    records = _records(frequencies)
    places = np.zeros((BUCKETS, PLACES if signed else 1), np.uint32)
    places[:, : contexts.shape[1]] = contexts * np.uint32(records.shape[1])
    history = np.empty(layout.steps * layout.lanes + BESIDE, np.uint8)
    columns, rates = np.empty((2, layout.width + BESIDE), np.int32)
    symbols = np.empty(layout.count, np.uint8)
    read = library.decode(
        ctypes.byref(layout.structure()), alphabet.zero, alphabet.centre, signed,
        *_native.pointers(RATES, places, records), *_native.pointers(words), len(words),
        *_native.pointers(states, history, columns, rates, symbols),
    )  # fmt: skip
    return symbols, read


def _decode(layout, alphabet, contexts, frequencies, states, words) -> tuple[np.ndarray, int]:  # type: ignore[no-untyped-def]
    """Symbols, and the number of words read; where there are too few, states end wrong."""
    symbols = np.zeros(layout.count, np.uint8)
    columns = np.full(layout.width, layout.prior, np.int64)
    table = np.repeat(np.arange(frequencies.size, dtype=np.int32) % 256, frequencies.ravel()).astype(np.uint8)
    ends = np.cumsum(frequencies, 1, dtype=np.uint32)
    scaled, signs = alphabet.magnitudes().astype(np.int64) << 16, alphabet.signs()
    slow, fast, left = (np.full(layout.lanes, layout.prior, np.int64) for _ in range(3))
    read = 0
    for step in range(layout.steps):
        numbers, at = layout.places(step)
        row, column = np.divmod(at, layout.width)
        begin = numbers[column == 0]
        slow[begin] = fast[begin] = left[begin] = layout.prior
        mean = columns[column]
        up = np.where(row > 0, scaled[symbols[at - layout.width]], layout.prior)
        channel = np.where(column >= layout.period, scaled[symbols[at - layout.period]], layout.prior)
        both = slow[numbers] * mean >> layout.prior.bit_length()
        seen = (slow[numbers], fast[numbers], left[numbers], mean, up, channel, both)
        total = sum(weight * values for weight, values in zip(layout.weights, seen, strict=True))
        level = _levels(layout, signs, symbols, at) + 2 if contexts.shape[1] > 1 else 0
        context = contexts[buckets(total), level].astype(np.int64)
        for turn in layout.turns(numbers):
            used, tables = numbers[turn] % layout.states, context[turn]
            state = states[used]
            slot = (state & np.uint64(0xFFFF)).astype(np.int64)
            symbol = table[(tables << 16) + slot]
            frequency = frequencies[tables, symbol]
            state = frequency * (state >> np.uint64(16)) + slot.astype(np.uint64) - ends[tables, symbol] + frequency
            low = np.flatnonzero(state < LOW)
            low = low[: len(words) - read]
            state[low] = state[low] << np.uint64(32) | words[read : read + len(low)]
            read += len(low)
            states[used], symbols[at[turn]] = state, symbol
        magnitude = scaled[symbols[at]]
        slow[numbers] += (magnitude - slow[numbers]) * RATES[np.minimum(column, MEMORY - 1)] >> 15
        fast[numbers] += magnitude - fast[numbers] >> 2
        left[numbers] = magnitude
        columns[column] = mean + ((magnitude - mean) * RATES[np.minimum(row, MEMORY - 1)] >> 15)
    return symbols, read


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


def _records(frequencies: np.ndarray) -> np.ndarray:
    """uint8, (tables, bytes): the symbol of the first slot of each of CELLS, and the spans of all symbols."""
    size, rows = SLOTS // CELLS, np.arange(len(frequencies))[:, None]
    ended = -(-np.cumsum(frequencies, 1, dtype=np.int64) // size) + rows * (CELLS + 1)
    first = np.bincount(ended.ravel(), minlength=len(rows) * (CELLS + 1)).reshape(-1, CELLS + 1).cumsum(1)[:, :-1]
    return np.hstack([first.astype(np.uint8), _spans(frequencies).view(np.uint8)])
