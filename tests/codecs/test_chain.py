"""Stages chain in any order, give back what they were given, and say what is wrong with a recipe's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.codecs import Transform, chain, codec
from distill.codecs._frame import Reader
from distill.errors import ArtifactError, RecipeError
from tests.codecs.test_codecs import some_array

STAGES = [*(name for name in codec.names() if name != "auto"), "delta(axis=0)", "csc(index_bits=2)", "block(size=3)"]


class Negated(Transform):
    """A stage from outside the package."""

    def split(self, codes: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
        return b"", [~codes]

    def join(self, head: Reader, streams: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        return ~streams[0]


def sparse(shape: tuple[int, ...] = (12, 5, 3, 3), density: float = 0.2, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.where(random.random(shape) < density, random.integers(-7, 8, shape), 0).astype(np.int8)


@settings(max_examples=120, deadline=None)
@given(stages=st.lists(st.sampled_from(STAGES), min_size=1, max_size=4), codes=some_array)
def test_any_chain_is_inverted(stages: list[str], codes: np.ndarray) -> None:
    coder = chain(*stages)
    decoded = coder.decode(coder.encode(codes))
    assert decoded.dtype == codes.dtype
    assert decoded.shape == codes.shape
    assert np.array_equal(decoded, codes)


@settings(max_examples=120, deadline=None)
@given(stages=st.lists(st.sampled_from(STAGES), min_size=1, max_size=3), data=st.data())
def test_a_damaged_chain_is_refused(stages: list[str], data: st.DataObject) -> None:
    coder = chain(*stages)
    stream = bytearray(coder.encode(sparse()))
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ArtifactError):
        coder.decode(bytes(stream))


def test_a_stage_from_outside_the_package() -> None:
    coder = chain("tests.codecs.test_chain:Negated", "bitmap", "ans")
    assert np.array_equal(coder.decode(coder.encode(sparse())), sparse())


def test_each_storage_counts_what_its_definition_counts() -> None:
    codes = sparse((20, 90), 0.1)
    entries = np.count_nonzero(codes)
    _, (counts, indices, values) = codec.find("csr")(index_bits=32).split(codes)
    assert counts.tolist() == np.count_nonzero(codes, axis=1).tolist()
    assert len(indices) == len(values) == entries
    _, (counts, _, values) = codec.find("csc")(index_bits=2).split(codes)
    zeros = [np.diff(np.flatnonzero(column), prepend=-1) - 1 for column in codes.T]
    assert counts.tolist() == [int((1 + gaps // 4).sum()) for gaps in zeros]  # a filler for each 4 zeros
    assert np.count_nonzero(values) == entries
    _, (present, values) = codec.find("bitmap")().split(codes)
    assert present.sum() == len(values) == entries
    _, (rows, columns, values) = codec.find("coo")().split(codes)
    assert np.array_equal(codes[rows, columns], values)


def test_delta_is_the_difference_along_its_axis() -> None:
    codes = sparse((6, 7)).astype(np.int16)
    _, (different,) = codec.find("delta")(axis=0).split(codes)
    assert np.array_equal(different.swapaxes(-1, 0)[1:], np.diff(codes, axis=0))


def test_delta_goes_along_the_last_axis_that_has_neighbours() -> None:
    codes = sparse((6, 7, 1, 1))
    _, (different,) = codec.find("delta")().split(codes)
    assert np.array_equal(different.squeeze((2, 1))[:, 1:], np.diff(codes.squeeze((2, 3)), axis=1))


def test_permute_finds_the_order_in_which_neighbours_are_alike() -> None:
    codes = np.repeat(np.random.default_rng(0).integers(-99, 99, (1, 40)), 50, axis=0).astype(np.int8)
    assert len(chain("permute", "run_length").encode(codes)) < len(chain("run_length").encode(codes)) / 5


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), "at least one stage"),
        (("dleta",), "unknown codec 'dleta'. Did you mean 'delta'?"),
        (("delta", "csc(index=4)"), "codec 'csc' has no setting 'index'. Did you mean 'index_bits'?"),
        (("csc(index_bits=four)",), "index_bits is of type int, not 'four'"),
        (("csc(index_bits=99)",), "index_bits is 99, but must be at least 1 and at most 32"),
        (("block(size=0)",), "size is 0, but must be at least 1"),
        (("delta(",), "is no codec: write a name"),
        (("nowhere.at:all",), "cannot import 'nowhere.at'"),
    ],
)
def test_what_no_chain_can_be(stages: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        chain(*stages)
    assert message in str(raised.value)


def test_auto_is_no_longer_than_what_it_chooses_from() -> None:
    codes = sparse((64, 80), 0.05)
    shortest = min(len(chain(name).encode(codes)) for name in ("context", "ans", "zstd"))
    assert len(chain("auto").encode(codes)) <= shortest + 2


def test_auto_keeps_to_its_time() -> None:
    codes = sparse((64, 80))
    assert chain("auto(seconds=0)").encode(codes)[2:] == chain("context").encode(codes)
