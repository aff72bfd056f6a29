"""The context coder: the same bytes compiled and not, shorter than zero-order entropy where neighbours are alike."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from distill.codecs import _fit, _lanes, _native, _neighbours, _tables, chain
from distill.codecs._tables import Alphabet, Tables
from tests.codecs import plain_context
from tests.codecs.test_codecs import bell, entropy

HERE = Path(__file__).parent


def filters(rows: int = 64, channels: int = 48, kernel: int = 3, seed: int = 0) -> np.ndarray:
    """Weights whose filters, channels and kernel positions differ in scale, as those of trained networks do."""
    random = np.random.default_rng(seed)
    scales = random.lognormal(1, 0.7, (rows, 1, 1, 1)) * random.lognormal(0, 0.5, (1, channels, 1, 1))
    scales = scales * random.lognormal(0, 0.4, (1, 1, kernel, kernel))
    return (random.laplace(0, 1, (rows, channels, kernel, kernel)) * scales).round().clip(-127, 127).astype(np.int8)


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "library", lambda: None)


@pytest.mark.parametrize(
    "codes", [filters(), bell(70_000, 9).reshape(100, 700), filters(40, 1)], ids=["3x3", "1x1", "dw"]
)
def test_numpy_writes_the_same_bytes_and_reads_them(codes: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    if _native.library() is None:
        pytest.skip("no C++ compiler")
    for name in ("context", "huffman"):
        coder = chain(name)
        compiled = coder.encode(codes)
        with monkeypatch.context() as patch:
            without_compiler(patch)
            assert coder.encode(codes) == compiled
            assert np.array_equal(coder.decode(compiled), codes)


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(st.integers(1, 70), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3))


@given(shape=shapes(), scale=st.sampled_from([0.3, 2.0, 30.0]), seed=st.integers(0, 9), states=st.integers(1, 8))
@settings(deadline=None, max_examples=30)
def test_tensors_of_any_shape_are_the_same_compiled_and_not(
    shape: tuple[int, ...], scale: float, seed: int, states: int
) -> None:
    random = np.random.default_rng(seed)
    codes = random.normal(0, scale * random.lognormal(0, 1, (shape[0], 1, 1, 1)), shape).round().clip(-99, 99)
    codes = codes.astype(np.int8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fit, "PER_STATE", 1)
        patch.setattr(_fit, "MOST_STATES", states)
        coded = chain("context").encode(codes)
        assert np.array_equal(chain("context").decode(coded), codes)
        without_compiler(patch)
        assert chain("context").encode(codes) == coded
        assert np.array_equal(chain("context").decode(coded), codes)


def test_streams_of_the_first_form_are_read() -> None:
    assert np.array_equal(chain("context").decode((HERE / "context_1.bin").read_bytes()), filters(32, 32))


@pytest.mark.parametrize("case", ["3x3", "1x1", "wide", "few rows", "pruned", "first form", "one state", "constant"])
def test_a_decoder_written_from_the_documentation_reads_them(case: str) -> None:
    random = np.random.default_rng(2)
    codes = {
        "3x3": filters(24, 20),
        "1x1": bell(3000, 3).reshape(60, 50),
        "wide": bell(2400, 40).reshape(8, 300),
        "few rows": bell(600, 9).reshape(3, 200),
        "pruned": filters(20, 16)
        * random.integers(0, 2, (20, 16, 1, 1), np.int8)
        * (np.arange(16) % 3 == 0)[:, None, None],
        "first form": filters(32, 32),
        "one state": filters(9, 5).clip(-1, 1),
        "constant": np.full((4, 7), -3, np.int16),
    }[case]
    data = (HERE / "context_1.bin").read_bytes() if case == "first form" else chain("context").encode(codes)
    kind, shape, values = plain_context.decode(data)
    assert (kind, shape) == (codes.dtype.name, codes.shape)
    assert values == codes.ravel().tolist()


def test_rows_and_channels_of_zeros_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = filters(24, 20)
    codes = np.zeros((64, 48, 3, 3), np.int8)
    rows, channels = (np.sort(np.random.default_rng(1).permutation(size)[:kept]) for size, kept in ((64, 24), (48, 20)))
    codes[np.ix_(rows, channels)] = dense
    coded, least = (chain("context").encode(array) for array in (codes, dense))
    assert len(coded) < len(least) + 30
    assert np.array_equal(chain("context").decode(coded), codes)
    without_compiler(monkeypatch)
    assert chain("context").encode(codes) == coded
    assert np.array_equal(chain("context").decode(coded), codes)


def test_rows_are_left_out_whatever_their_value() -> None:
    apart = (filters(24, 20).clip(-7, 7) + 8).astype(np.uint8)
    codes = np.full((64, 20, 3, 3), 8, np.uint8)
    codes[::3][:22] = apart[:22]
    assert np.array_equal(chain("context").decode(chain("context").encode(codes)), codes)
    wide = codes.astype(np.int32) * 1000 - 8000
    assert np.array_equal(chain("context").decode(chain("context").encode(wide)), wide)


def test_neighbours_save_what_frequencies_alone_cannot() -> None:
    codes = filters()
    assert 8 * len(chain("context").encode(codes)) < 0.97 * entropy(codes) * codes.size


def test_signs_of_neighbours_save_what_their_magnitudes_cannot() -> None:
    random = np.random.default_rng(0)
    smooth = (random.normal(0, 3, (64, 64, 1, 1)) + random.normal(0, 1, (64, 64, 3, 3))).round().astype(np.int8)
    shuffled = smooth * random.choice([-1, 1], smooth.shape).astype(np.int8)
    together, apart = (len(chain("context").encode(codes)) for codes in (smooth, shuffled))
    assert together < 0.95 * apart


def test_without_neighbours_that_tell_anything_it_takes_the_entropy() -> None:
    codes = bell(200_000, 12).reshape(200, 1000)
    assert 8 * len(chain("context").encode(codes)) < 1.002 * entropy(codes) * codes.size


def test_tables_of_a_small_tensor_take_few_bytes() -> None:
    codes = bell(216, 45).reshape(24, 1, 3, 3)
    ideal = 216 * np.log2(45 * np.sqrt(2 * np.pi * np.e)) / 8
    assert len(chain("context").encode(codes)) < ideal + 32


def test_a_code_apart_for_zero_costs_no_more_than_zero_in_the_middle() -> None:
    codes = filters().clip(-7, 7)
    apart = np.where(codes == 0, 0, np.where(codes < 0, codes + 8, codes + 7)).astype(np.uint8)
    middle, clustered = (len(chain("context").encode(array)) for array in (codes, apart))
    assert clustered < middle * 1.01


def test_decoding_takes_three_times_the_tensor_at_most() -> None:
    codes = filters(512, 512)
    data = chain("context").encode(codes)
    chain("context").decode(data)
    tracemalloc.start()
    try:
        chain("context").decode(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * codes.nbytes
    finally:
        tracemalloc.stop()


@given(
    even=arrays.arrays(np.int64, (3, 4), elements=st.integers(-3000, 3000)),
    odd=arrays.arrays(np.int64, (2,), elements=st.integers(-300, 300)),
    size=st.integers(6, 256),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_every_table_has_room_for_every_symbol(
    even: np.ndarray, odd: np.ndarray, size: int, data: st.DataObject
) -> None:
    alphabet = Alphabet(size, data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 2 * size)))
    even = even[:, : alphabet.features().shape[1] - 2]
    tilts = data.draw(st.sampled_from([np.zeros((0, 2), np.int64), np.array([[99, -900], [-3000, 7]])]))
    frequencies = Tables(alphabet, even, odd, tilts, np.zeros(size, np.int8)).frequencies()
    assert len(frequencies) == 3 * (1 if not len(tilts) else 5)
    assert (frequencies.sum(1) == 2**16).all()
    assert (frequencies[:, :size] > 0).all()
    assert not frequencies[:, size:].any()


def test_powers_of_two_are_rounded_down_exactly() -> None:
    exact = [int(2 ** (40 - k / 64)) for k in range(64)]  # floats: at most one off
    assert np.abs(_tables._powers() - exact).max() <= 1
    assert _tables._powers()[0] == 2**40


def test_a_slow_mean_is_the_mean() -> None:
    magnitudes = np.random.default_rng(0).integers(0, 20, (1, 100), dtype=np.uint8)
    row = next(_neighbours.neighbours(magnitudes, 1, 5 << 16))
    plain = [(5 + magnitudes[0, :at].sum()) / (at + 1) for at in range(100)]
    # The prior counts as one weight before the first: 1 / (n + 2) of the way each time.
    assert np.abs(row[0] / 2**16 - plain).max() < 0.6


def test_lanes_cover_every_weight_once() -> None:
    for count, width, lanes in ((100, 7, 5), (64, 8, 8), (5, 5, 1), (1000, 33, 31)):
        layout = _lanes.Layout(count, width, 1, 1, lanes, 1, 0, (0,) * 7)
        places = np.concatenate([layout.places(step)[1] for step in range(layout.steps)])
        assert sorted(places.tolist()) == list(range(count))
