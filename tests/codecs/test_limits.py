"""A few bytes never make a decoder allocate much memory, however they lie."""

import lzma
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache

import brotli
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.codecs import chain, codec
from distill.codecs._frame import FREE, PER_BYTE, number
from distill.codecs.lzma import FILTERS
from distill.errors import ArtifactError
from tests.codecs.test_chain import sparse

MEGABYTES = 2**20


def sealed(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "little") + body


@cache
def coded(name: str) -> bytes:
    return codec.find(name)().encode(sparse((8, 6, 3, 3)))


def peak(decode: Callable[[], object]) -> float:
    """Megabytes."""
    tracemalloc.start()
    try:
        decode()
        return tracemalloc.get_traced_memory()[1] / MEGABYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [name for name in codec.names() if name != "auto"])
def test_a_shape_too_large_for_the_stream_is_refused_before_memory_is_asked_for(name: str) -> None:
    coder = codec.find(name)()  # imported before memory is measured
    for shape in ([2**28], [2**14, 2**14], [2**63, 2**63], [0, 2**62]):
        stream = sealed(bytes([len(shape)]) + b"".join(map(number, shape)) + bytes(40))

        def decode(stream: bytes = stream) -> None:
            with pytest.raises(ArtifactError, match="claims the shape"):
                coder.decode(stream)

        assert peak(decode) < 1


@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("zstd", zstandard.compress(bytes(300 * MEGABYTES))),
        ("zlib", zlib.compress(bytes(300 * MEGABYTES))),
        ("brotli", brotli.compress(bytes(300 * MEGABYTES), quality=1)),
        ("lzma", lzma.compress(bytes(300 * MEGABYTES), lzma.FORMAT_RAW, filters=FILTERS)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bomb_is_not_unpacked(name: str, bomb: bytes) -> None:
    stream = sealed(bytes([1]) + number(1000) + b"\0\1" + bomb)

    def decode() -> None:
        with pytest.raises(ArtifactError):
            codec.find(name)().decode(stream)

    assert peak(decode) < 40  # a decoder's window


def test_runs_longer_than_the_tensor_are_refused() -> None:
    inner = chain("packed")
    parts = [b"", inner.encode(np.array([7], np.int8)), inner.encode(np.array([2**32 - 1], np.uint32))]
    body = b"".join(number(len(part)) + part for part in parts)

    def decode() -> None:
        with pytest.raises(ArtifactError, match="runs"):
            codec.find("run_length")().decode(sealed(bytes([1]) + number(1000) + body))

    assert peak(decode) < 1


@pytest.mark.parametrize("name", codec.names())
def test_a_large_constant_tensor_is_padded_to_what_the_limit_allows(name: str) -> None:
    codes = np.zeros((2, FREE + 40 * PER_BYTE), np.int8)
    stream = codec.find(name)().encode(codes)
    assert np.array_equal(codec.find(name)().decode(stream), codes)
    assert len(stream) < 300 or name in ("csr", "csc", "bitplane", "bitmap", "huffman", "block")


@pytest.mark.parametrize("name", [name for name in codec.names() if name != "auto"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_an_altered_stream_with_a_right_checksum_is_refused_or_decoded(name: str, data: st.DataObject) -> None:
    stream = bytearray(coded(name)[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    stream = stream[: data.draw(st.integers(len(stream) - 3, len(stream)))]
    try:
        decoded = codec.find(name)().decode(sealed(bytes(stream)))
    except ArtifactError:
        return
    assert decoded.dtype.kind in "iu"
