"""The shortest of several codecs, tensor by tensor."""

from time import perf_counter

import numpy as np

from distill.codecs import chain, codec
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


@codec("auto")
class Auto:
    """What is smallest among the codecs tried until time is up; the first, ``context``, is always tried.

    Args:
        seconds: after which no other codec is begun, for each tensor.
    """

    def __init__(self, *, seconds: NonNegative = 5.0) -> None:
        self.seconds = seconds

    def encode(self, codes: np.ndarray) -> bytes:
        start = perf_counter()
        best = b""
        for position, stages in enumerate(CHAINS):
            data = _head(position) + chain(*stages).encode(codes)
            best = min(best or data, data, key=len)
            if perf_counter() - start > self.seconds:
                break
        return best

    def decode(self, data: bytes) -> np.ndarray:
        if len(data) < 2 or data[0] >= len(CHAINS) or data[:2] != _head(data[0]):
            raise ArtifactError("a coded stream is damaged, or of a codec that this program does not know")
        return chain(*CHAINS[data[0]]).decode(data[2:])


def _head(position: int) -> bytes:
    """With its complement, for the checksum that follows is not of these."""
    return bytes([position, 255 - position])
