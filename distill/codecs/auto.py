"""The shortest of several codecs, tensor by tensor."""

from time import perf_counter

import numpy as np

from distill.codecs import chain, codec
from distill.codecs._transform import Coder
from distill.errors import ArtifactError
from distill.registry.ranges import NonNegative

CHAINS: tuple[tuple[str, ...], ...] = (
    ("context",),
    ("ans",),
    ("bitmap", "context"),
    ("permute", "context"),
    ("zstd",),
    ("run_length", "ans"),
    ("delta", "context"),
    ("brotli",),
    ("bitplane", "context"),
    ("block", "context"),
    ("lzma",),
)
"""Tried in this order; a stream begins with the position of its codec, so that new ones may only be appended."""

PART = 2**14
"""Values that show how fast a codec is."""


@codec("auto")
class Auto:
    """What is smallest among the codecs that time is left for; the first, ``context``, is always tried.

    Args:
        seconds: for each tensor; a codec that would not be done by then, judged by a part of the tensor, is not begun.
    """

    def __init__(self, *, seconds: NonNegative = 5.0) -> None:
        self.seconds = seconds

    def encode(self, codes: np.ndarray) -> bytes:
        start = perf_counter()
        best = b""
        for position, stages in enumerate(CHAINS):
            coder = chain(*stages)
            left = self.seconds - (perf_counter() - start)
            if best and (left <= 0 or _seconds(coder, codes) > left):
                continue
            data = _head(position) + coder.encode(codes)
            best = min(best or data, data, key=len)
        return best

    def decode(self, data: bytes) -> np.ndarray:
        return chain(*stages_of(data)).decode(data[2:])


def stages_of(data: bytes) -> tuple[str, ...]:
    """Which codec ``auto`` took for a stream of its own.

    Raises:
        ArtifactError: the stream does not begin as one of ``auto``'s.
    """
    if len(data) < 2 or data[0] >= len(CHAINS) or data[:2] != _head(data[0]):
        raise ArtifactError("a coded stream is damaged, or of a codec that this program does not know")
    return CHAINS[data[0]]


def _seconds(coder: Coder, codes: np.ndarray) -> float:
    """How long encoding takes, in proportion to a part; of a small tensor, no time."""
    if codes.size <= 4 * PART:
        return 0.0
    start = perf_counter()
    coder.encode(codes.reshape(-1)[:PART])
    return (perf_counter() - start) * codes.size / PART


def _head(position: int) -> bytes:
    """With its complement, for the checksum that follows is not of these."""
    return bytes([position, 255 - position])
