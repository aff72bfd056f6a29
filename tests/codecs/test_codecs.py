"""Every codec gives back exactly what it was given, in few bytes, and refuses what is damaged."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from distill.codecs import codec
from distill.codecs._transform import Coder
from distill.errors import ArtifactError

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
every_codec = pytest.mark.parametrize("name", codec.names())
some_array = st.sampled_from(INTEGERS).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
)


def bell(count: int, deviation: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, deviation, count).round().clip(-127, 127).astype(np.int8)


def entropy(codes: np.ndarray) -> float:
    """Bits per value, counted in a plain way."""
    share = np.unique(codes, return_counts=True)[1] / codes.size
    return float(-(share * np.log2(share)).sum())


def quick(name: str) -> Coder:
    """The codec; ``auto`` does not try all others each time."""
    return codec.find(name)(**({"seconds": 0.02} if name == "auto" else {}))


@every_codec
@settings(max_examples=150, deadline=None)
@given(codes=some_array)
def test_round_trip(name: str, codes: np.ndarray) -> None:
    coder = quick(name)
    decoded = coder.decode(coder.encode(codes))
    assert decoded.dtype == codes.dtype
    assert decoded.shape == codes.shape
    assert np.array_equal(decoded, codes)


@every_codec
@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((0, 3), np.int16),
        np.array(-7, np.int8),
        np.full((4, 5), 65535, np.uint16),
        np.array([np.iinfo(np.int64).min, -1, np.iinfo(np.int64).max]),
        np.array([0, 2**64 - 1], np.uint64),
        np.arange(-128, 128, dtype=np.int8).repeat(3),
        np.random.default_rng(0).integers(-(2**40), 2**40, 3000),
        np.where(np.random.default_rng(0).random(5000) < 0.9, 0, bell(5000, 30)).astype(np.int8),
    ],
    ids=["empty", "scalar", "constant", "extremes", "unsigned extremes", "uniform", "wide", "sparse"],
)
def test_round_trip_of_special_arrays(name: str, codes: np.ndarray) -> None:
    coder = codec.find(name)()
    decoded = coder.decode(coder.encode(codes))
    assert decoded.dtype == codes.dtype
    assert np.array_equal(decoded, codes)


def test_other_byte_orders_and_layouts_keep_their_values() -> None:
    codes = np.arange(12, dtype=">i2").reshape(3, 4).T
    for name in codec.names():
        coder = codec.find(name)()
        assert np.array_equal(coder.decode(coder.encode(codes)), codes)


@pytest.mark.parametrize(("name", "excess"), [("ans", 0.003), ("huffman", 0.02)])
def test_a_large_tensor_takes_its_entropy(name: str, excess: float) -> None:
    codes = bell(200_000, 30)
    assert 8 * len(codec.find(name)().encode(codes)) < codes.size * entropy(codes) * (1 + excess)


@pytest.mark.parametrize("name", ["ans", "huffman"])
def test_a_small_tensor_has_a_small_table(name: str) -> None:
    codes = bell(216, 45)  # a depthwise layer of 24 channels
    ideal = 216 * np.log2(45 * np.sqrt(2 * np.pi * np.e)) / 8  # the entropy of the bell curve itself
    assert len(codec.find(name)().encode(codes)) < ideal + 32


def test_the_zeros_of_a_pruned_layer_are_cheap() -> None:
    random = np.random.default_rng(0)
    codes = np.where(random.random(4000) < 0.9, 0, bell(4000, 40)).astype(np.int8)
    ideal = 4000 * (-0.9 * np.log2(0.9) - 0.1 * np.log2(0.1) + 0.1 * np.log2(40 * np.sqrt(2 * np.pi * np.e))) / 8
    assert len(codec.find("ans")().encode(codes)) < ideal * 1.05


@every_codec
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_stream_is_refused(name: str, data: st.DataObject) -> None:
    coder = quick(name)
    stream = bytearray(coder.encode(bell(300, 20).reshape(20, 15)))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ArtifactError, match="stream"):
        coder.decode(bytes(stream))


@every_codec
@pytest.mark.parametrize("length", [0, 3, 4, 5, 9, 20, -1])
def test_a_truncated_stream_is_refused(name: str, length: int) -> None:
    coder = codec.find(name)()
    with pytest.raises(ArtifactError, match="stream"):
        coder.decode(coder.encode(bell(300, 20))[:length])


@every_codec
@settings(max_examples=300, deadline=None)
@given(body=st.binary(min_size=0, max_size=60), head=st.sampled_from([b"", b"\x01\x0a", b"\x01\xff\xff\xff\x7f"]))
def test_a_hostile_stream_with_a_right_checksum_is_refused_or_decoded(name: str, body: bytes, head: bytes) -> None:
    body = head + body
    try:
        decoded = codec.find(name)().decode(zlib.crc32(body).to_bytes(4, "little") + body)
    except ArtifactError:
        return
    assert decoded.dtype.kind in "iu"


@every_codec
def test_only_integers_are_coded(name: str) -> None:
    with pytest.raises(TypeError, match="not float32"):
        codec.find(name)().encode(np.zeros(3, np.float32))


@every_codec
def test_the_same_values_give_the_same_bytes(name: str) -> None:
    coder = codec.find(name)()
    assert coder.encode(bell(500, 9)) == coder.encode(bell(500, 9))
