"""Lossless codecs compared on the weights of a network: how short, and how fast."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from time import process_time

import numpy as np

from distill.codecs import chain
from distill.codecs._transform import Coder
from distill.errors import DistillError

STAGES = ("csc", "bitmap", "run_length", "huffman", "ans", "zstd")
"""Compared by default, in pairs."""
BASELINE = ("csc(index_bits=4)",)
BEFORE = "delta"
DECODINGS = 3
"""Of each tensor, of which the fastest counts: other work on the machine disturbs short ones most."""


@dataclass(frozen=True)
class Row:
    """One codec on all weights of a network."""

    stages: tuple[str, ...]
    bits_per_weight: float
    ratio: float
    """Bytes of the weights in float32, as a multiple of the coded ones."""
    ratio_to_csc: float
    """Bytes in compressed sparse columns with 4-bit relative indices, likewise."""
    over_entropy: float
    """How far above the zero-order entropy of each tensor, as a part of it; below 0 where context helps."""
    encode_mbps: float
    """Megabytes of codes, as they are in memory, per second of one core."""
    decode_mbps: float

    @property
    def name(self) -> str:
        return " + ".join(self.stages)


def pairs(stages: Sequence[str] = STAGES) -> list[tuple[str, ...]]:
    """Every stage followed by every stage, and all of these after differencing: 72 codecs of six stages."""
    plain = list(product(stages, stages))
    return [*plain, *((BEFORE, *pair) for pair in plain)]


def compare(tensors: Mapping[str, np.ndarray], chains: Sequence[tuple[str, ...]]) -> Iterator[Row]:
    """One row for each codec, as it is measured; every tensor is decoded and compared with what it was.

    Args:
        tensors: integers by name.
        chains: stages of each codec: see `distill.codecs.chain`.

    Raises:
        DistillError: a codec gives back something else than it was given.
        RecipeError: there is no such codec.
    """
    coders = {stages: chain(*stages) for stages in chains}  # a name that does not exist is refused at once
    weights = sum(codes.size for codes in tensors.values())
    megabytes = sum(codes.nbytes for codes in tensors.values()) / 1e6
    ideal = sum(entropy(codes) * codes.size for codes in tensors.values()) / 8
    baseline = sum(len(chain(*BASELINE).encode(codes)) for codes in tensors.values())
    for stages, coder in coders.items():
        size, seconds = 0, np.zeros(2)
        for name, codes in tensors.items():
            start = process_time()
            data = coder.encode(codes)
            seconds[0] += process_time() - start
            decoded, fastest = _decoded(coder, data)
            seconds[1] += fastest
            if decoded.dtype != codes.dtype or not np.array_equal(decoded, codes):
                raise DistillError(f"codec {' + '.join(stages)} does not give back '{name}' as it was")
            size += len(data)
        yield Row(
            stages,
            bits_per_weight=8 * size / weights,
            ratio=4 * weights / size,
            ratio_to_csc=baseline / size,
            over_entropy=size / ideal - 1 if ideal else float("inf"),
            encode_mbps=megabytes / seconds[0],
            decode_mbps=megabytes / seconds[1],
        )


def _decoded(coder: Coder, data: bytes) -> tuple[np.ndarray, float]:
    """What the codec makes of its stream, and the least seconds that takes."""
    fastest = float("inf")
    for _ in range(DECODINGS):
        start = process_time()
        decoded = coder.decode(data)
        fastest = min(fastest, process_time() - start)
    return decoded, fastest


def entropy(codes: np.ndarray) -> float:
    """Zero-order entropy in bits per value: of the values' frequencies alone."""
    counts = np.unique(codes, return_counts=True)[1]
    share = counts / max(1, codes.size)
    return float(-(share * np.log2(share)).sum())
