"""Huffman: A Method for the Construction of Minimum-Redundancy Codes (1952). Coded by `constriction`."""

from math import prod

import numpy as np
from constriction import symbol

from distill.codecs import _frame, _symbols, codec
from distill.errors import ArtifactError


@codec("huffman")
class Huffman:
    """Whole bits per symbol: up to a few percent longer than ``ans``."""

    def encode(self, codes: np.ndarray) -> bytes:
        return _frame.encode(codes, lambda values: _symbols.write(values, _pack))

    def decode(self, data: bytes) -> np.ndarray:
        return _frame.decode(data, lambda reader, _, shape: _symbols.read(reader, prod(shape), _unpack))


def _pack(symbols: np.ndarray, weights: np.ndarray) -> bytes:
    encoder, tree = symbol.QueueEncoder(), symbol.huffman.EncoderHuffmanTree(weights)
    for value in symbols.tolist():
        encoder.encode_symbol(value, tree)
    words, bits = encoder.get_compressed_and_bitrate()
    return words.astype("<u4").tobytes()[: -(-bits // 8)]


def _unpack(data: bytes, weights: np.ndarray, count: int) -> np.ndarray:
    words = np.frombuffer(data + b"\0" * (-len(data) % 4), "<u4").astype(np.uint32)
    decode, tree = symbol.QueueDecoder(words).decode_symbol, symbol.huffman.DecoderHuffmanTree(weights)
    try:
        return np.fromiter((decode(tree) for _ in range(count)), np.int64, count)
    except ValueError as error:
        raise ArtifactError(f"a coded stream is damaged: {error}") from None
