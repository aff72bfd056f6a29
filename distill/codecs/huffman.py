"""Huffman: A Method for the Construction of Minimum-Redundancy Codes (1952), in canonical form.

Schwartz & Kallick: Generating a canonical prefix encoding (1964): of the code only its lengths matter, so words are
counted up from them. The symbols are cut into segments, one bit stream each, that are decoded side by side.
"""

from heapq import heapify, heappop, heappush
from math import prod

import numpy as np

from distill.codecs import _frame, _native, _symbols, codec
from distill.codecs._frame import Reader, number
from distill.errors import ArtifactError

LONGEST = 16
"""Bits of a code word: the decoder's table has 2**16 entries."""
PER_SEGMENT = 4096


@codec("huffman")
class Huffman:
    """Whole bits per symbol: up to a few percent longer than ``ans``."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _frame.encode(codes, lambda values: _symbols.write(values, _pack))

    def decode(self, data: bytes) -> np.ndarray:
        return _frame.decode(data, lambda reader, _, shape: _symbols.read(reader, prod(shape), _unpack))


def _pack(symbols: np.ndarray, weights: np.ndarray) -> bytes:
    lengths = code_lengths(weights)
    words = _canonical(lengths)
    segments = [
        _bits(words[segment], lengths[segment])
        for segment in np.split(symbols, range(PER_SEGMENT, len(symbols), PER_SEGMENT))
    ]
    return b"".join(number(len(segment)) for segment in segments) + b"".join(segments)


def _bits(words: np.ndarray, lengths: np.ndarray) -> bytes:
    shifts = lengths[:, None] - 1 - np.arange(LONGEST)
    return np.packbits((words[:, None] >> np.maximum(shifts, 0) & 1)[shifts >= 0].astype(np.uint8)).tobytes()


def _unpack(data: bytes, weights: np.ndarray, count: int) -> np.ndarray:
    reader = Reader(data)
    sizes = np.array([reader.number() for _ in range(-(-count // PER_SEGMENT))], np.int64)
    stream = reader.rest()
    if int(sizes.sum()) != len(stream):
        raise ArtifactError("a coded stream is damaged: its segments are not as long as it is")
    ends = 8 * np.cumsum(sizes)
    padded = np.frombuffer(stream + bytes(4), np.uint8)
    table, lengths = _table(code_lengths(weights))
    symbols = np.empty(count, np.int32)
    if library := _native.library():
        arrays = padded, ends, table, lengths, symbols
        bits, bounds, *rest = _native.pointers(*arrays)
        whole = library.huffman(bits, bounds, len(ends), PER_SEGMENT, count, *rest) == 0
    else:
        whole = _decode(padded, ends, table, lengths, symbols)
    if not whole:
        raise ArtifactError("a coded stream ends too early")
    return symbols


def _decode(stream: np.ndarray, ends: np.ndarray, table: np.ndarray, lengths: np.ndarray, symbols: np.ndarray) -> bool:
    """Fill in ``symbols``, all segments at once; returns whether each segment's words end with it."""
    wide = stream.astype(np.uint32)
    windows = wide[:-2] << 16 | wide[1:-1] << 8 | wide[2:]
    places = np.concatenate([[0], ends[:-1]])
    starts = np.arange(0, len(symbols), PER_SEGMENT)
    for row in range(min(PER_SEGMENT, len(symbols))):
        at = starts + row
        busy = at < len(symbols)  # the last segment is shorter
        word = windows[places[busy] >> 3] >> (8 - (places[busy] & 7)).astype(np.uint32) & 0xFFFF
        symbols[at[busy]] = table[word]
        places[busy] += lengths[word]
        if (places > ends).any():
            return False
    return True


def code_lengths(weights: np.ndarray) -> np.ndarray:
    """The number of bits, 1 to 16, of each of two or more symbols with these frequencies."""
    floor = 1.0
    while True:
        lengths = _huffman(np.maximum(weights, floor))
        if lengths.max() <= LONGEST:
            return lengths
        floor = max(2 * floor, weights.min())


def _huffman(weights: np.ndarray) -> np.ndarray:
    heap = [(float(weight), symbol) for symbol, weight in enumerate(weights)]
    heapify(heap)
    parents = np.zeros(2 * len(heap) - 1, np.int64)
    for node in range(len(weights), len(parents)):
        (first, left), (second, right) = heappop(heap), heappop(heap)
        parents[[left, right]] = node
        heappush(heap, (first + second, node))
    depths = np.zeros(len(parents), np.int64)
    for node in range(len(parents) - 2, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[: len(weights)]


def _canonical(lengths: np.ndarray) -> np.ndarray:
    """The words, shorter ones first and those of one length in the order of their symbols."""
    order = np.argsort(lengths, kind="stable")
    # Each word takes its share of the range of 16-bit numbers.
    shares = 2 ** (LONGEST - lengths[order])
    words = np.zeros(len(lengths), np.int64)
    words[order] = np.cumsum(shares) - shares >> LONGEST - lengths[order]
    return words


def _table(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each 16 bits, the symbol whose word they begin with, and its length."""
    order = np.argsort(lengths, kind="stable")
    symbols = np.repeat(order, 2 ** (LONGEST - lengths[order]))
    return symbols.astype(np.int32), lengths[symbols].astype(np.uint8)
