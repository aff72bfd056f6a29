"""Martin: Range encoding: an algorithm for removing redundancy from a digitised message (1979). By `constriction`."""

from math import prod

import numpy as np
from constriction import stream

from distill.codecs import _frame, _symbols, codec
from distill.errors import ArtifactError


@codec("range")
class Range:
    """As short as ``ans``, from the same tables; decoded in the order of encoding."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _frame.encode(codes, lambda values: _symbols.write(values, _pack))

    def decode(self, data: bytes) -> np.ndarray:
        return _frame.decode(data, lambda reader, _, shape: _symbols.read(reader, prod(shape), _unpack))


def _pack(symbols: np.ndarray, weights: np.ndarray) -> bytes:
    coder = stream.queue.RangeEncoder()
    coder.encode(symbols, stream.model.Categorical(weights, perfect=False))
    return coder.get_compressed().astype("<u4").tobytes()


def _unpack(data: bytes, weights: np.ndarray, count: int) -> np.ndarray:
    if len(data) % 4:
        raise ArtifactError("a coded stream ends too early")
    coder = stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))
    try:
        symbols = coder.decode(stream.model.Categorical(weights, perfect=False), count)
    except (AssertionError, ValueError) as error:
        raise ArtifactError(f"a coded stream is damaged: {error}") from None
    if not coder.maybe_exhausted():
        raise ArtifactError("a coded stream is damaged: it holds more than its values")
    return symbols
