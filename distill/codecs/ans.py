"""Duda: Asymmetric numeral systems. arXiv:1311.2540. One static model per tensor, coded by `constriction`."""

from math import prod

import numpy as np
from constriction import stream

from distill.codecs import _frame, _symbols, codec
from distill.errors import ArtifactError


@codec("ans")
class Ans:
    """As short as the values' frequencies allow; the default."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _frame.encode(codes, lambda values: _symbols.write(values, _pack))

    def decode(self, data: bytes) -> np.ndarray:
        return _frame.decode(data, lambda reader, _, shape: _symbols.read(reader, prod(shape), _unpack))


def _pack(symbols: np.ndarray, weights: np.ndarray) -> bytes:
    coder = stream.stack.AnsCoder()
    coder.encode_reverse(symbols, _model(weights))
    return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")  # the last word is never zero


def _unpack(data: bytes, weights: np.ndarray, count: int) -> np.ndarray:
    words = np.frombuffer(data + b"\0" * (-len(data) % 4), "<u4").astype(np.uint32)
    try:
        coder = stream.stack.AnsCoder(words)
    except ValueError as error:
        raise ArtifactError(f"a coded stream is damaged: {error}") from None
    symbols = coder.decode(_model(weights), count)
    if not coder.is_empty():
        raise ArtifactError("a coded stream is damaged: it holds more than its values")
    return symbols


def _model(weights: np.ndarray) -> stream.model.Categorical:
    return stream.model.Categorical(weights, perfect=False)
