"""Weights coded by what is near them: contexts from the magnitudes of neighbours already coded, one static table each.

The idea is that of DeepCABAC (Wiedemann et al., arXiv:1907.11900), which adapts binary models as it goes. Here the
tables stand still, made from a few parameters that the stream begins with, so that many weights are decoded at once.
"""

from dataclasses import replace
from math import prod

import numpy as np

from distill.codecs import _frame, _lanes, codec
from distill.codecs._bins import Bins
from distill.codecs._bits import pack_bits
from distill.codecs._fit import fit
from distill.codecs._frame import Reader, number
from distill.codecs._parameters import Parameters
from distill.codecs._parts import Part
from distill.errors import ArtifactError


@codec("context")
class Context:
    """The shortest for weights, with small tables and quick to decode: the default."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _frame.encode(codes, _write)

    def decode(self, data: bytes) -> np.ndarray:
        return _frame.decode(data, _read)


def _write(codes: np.ndarray) -> bytes:
    values = codes.ravel()
    bins = Bins.of(values)
    symbols, kept = bins.split(values)
    low = pack_bits(kept, bins.low)
    if bins.size == 1:
        return bins.to_bytes() + low
    part = Part.of(symbols.reshape(codes.shape), bins.zero)
    parts = [None] if part is None else [None, part]
    fits = (_fitted(bins, symbols.reshape(codes.shape), part) for part in parts)
    _, found, tables, symbols = min(fits, key=lambda fitted: fitted[0])
    coded = _pack(*_lanes.encode(found.layout, tables, found.tables.frequencies(), symbols))
    return bins.to_bytes() + found.to_bytes() + (number(len(coded)) if bins.low else b"") + coded + low


def _fitted(bins: Bins, symbols: np.ndarray, part: Part | None) -> tuple[float, Parameters, np.ndarray, np.ndarray]:
    """What `fit` finds for the part of these symbols, and its symbols, flat."""
    left = symbols if part is None else part.taken(symbols)
    found = (fit(left.ravel(), alphabet, left.shape) for alphabet in bins.alphabets(left))
    size, parameters, tables = min(found, key=lambda candidate: candidate[0])
    return size + (0 if part is None else part.cost), replace(parameters, part=part), tables, left.ravel()


def _read(reader: Reader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    bins = Bins.read(reader)
    if bins.size == 1:
        return bins.join(np.zeros(prod(shape), np.uint8), reader.rest(), dtype)
    found = Parameters.read(reader, bins.size, shape)
    coded = reader.take(reader.number()) if bins.low else reader.rest()
    coder = found.tables.frequencies(), *_unpack(coded, found.layout.states)
    symbols = _lanes.decode(found.layout, found.tables.alphabet, found.contexts(), *coder)
    if found.part is not None:
        symbols = found.part.spread(symbols, found.tables.alphabet.zero)
    return bins.join(symbols, reader.rest(), dtype)


def _pack(states: np.ndarray, words: np.ndarray) -> bytes:
    """A state alone leaves out the zero bytes at its end."""
    ends = states.astype("<u8").tobytes()
    return words.astype("<u4").tobytes() + (ends.rstrip(b"\0") if len(states) == 1 else ends)


def _unpack(coded: bytes, number: int) -> tuple[np.ndarray, np.ndarray]:
    if number == 1:
        # After words, a state has 5 to 8 bytes: it is at least 2**32.
        size = len(coded) if len(coded) <= 8 else 5 + (len(coded) - 5) % 4
        coded += b"\0" * (8 - size)
    if len(coded) < 8 * number or len(coded) % 4:
        raise ArtifactError("a coded stream ends too early")
    end = len(coded) - 8 * number
    states, words = np.frombuffer(coded, "<u8", offset=end), np.frombuffer(coded, "<u4", count=end // 4)
    return states.astype(np.uint64), words.astype(np.uint32, copy=False)
