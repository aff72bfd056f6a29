"""Which codecs `auto` begins: by a clock that runs as fast as the codecs' lengths say."""

import numpy as np
import pytest

from distill.codecs import auto
from distill.codecs.auto import CHAINS, Auto

PER_VALUE = {("brotli",): 1e-3, ("lzma",): 1e-3}
"""Seconds; of all others 1e-6."""


class Timed:
    """A codec that codes nothing, moves the clock on, and remembers how much it was given."""

    now = 0.0
    begun: dict[tuple[str, ...], int]

    def __init__(self, *stages: str) -> None:
        self.stages = stages

    def encode(self, codes: np.ndarray) -> bytes:
        Timed.now += PER_VALUE.get(self.stages, 1e-6) * codes.size
        Timed.begun[self.stages] = max(codes.size, Timed.begun.get(self.stages, 0))
        return bytes(codes.size)

    def decode(self, data: bytes) -> np.ndarray:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    Timed.now, Timed.begun = 0.0, {}
    monkeypatch.setattr(auto, "chain", Timed)
    monkeypatch.setattr(auto, "perf_counter", lambda: Timed.now)


@pytest.mark.parametrize("seconds", [0.5, 20.0, 400.0])
def test_a_codec_that_would_take_too_long_is_not_begun(seconds: float) -> None:
    codes = np.random.default_rng(0).integers(-3, 4, 100_000).astype(np.int8)
    Auto(seconds=seconds).encode(codes)
    whole = {stages for stages, size in Timed.begun.items() if size == codes.size}
    assert ("context",) in whole
    assert (whole == set(CHAINS)) == (seconds == 400.0)
    assert ("ans",) in whole
    assert Timed.now <= seconds + 2 * 1e-3 * auto.PART  # at most the parts of the slow ones too many


def test_without_time_there_is_one_codec() -> None:
    codes = np.random.default_rng(0).integers(-3, 4, 100_000).astype(np.int8)
    Auto(seconds=0.0).encode(codes)
    assert {stages for stages, size in Timed.begun.items() if size == codes.size} == {("context",)}
