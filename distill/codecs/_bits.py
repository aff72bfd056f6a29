"""Non-negative integers in a fixed number of bits each, plane by plane."""

import numpy as np

from distill.errors import ArtifactError


def pack_bits(values: np.ndarray, bits: int) -> bytes:
    """All lowest bits first, then all second ones, ...; the last byte is filled with zeros.

    Args:
        values: uint64, flat; only their lowest ``bits`` bits are kept.
        bits: 0 to 64.
    """
    planes = [(values >> np.uint64(bit)).astype(np.uint8) & 1 for bit in range(bits)]
    return np.packbits(np.concatenate(planes)).tobytes() if planes else b""


def unpack_bits(data: bytes, count: int, bits: int) -> np.ndarray:
    """The inverse of `pack_bits`: ``count`` integers, uint64.

    Raises:
        ArtifactError: ``data`` has another length than they take.
    """
    if len(data) != -(-count * bits // 8):
        raise ArtifactError("a coded stream has too few or too many low bits")
    planes = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(bits, count)
    values = np.zeros(count, np.uint64)
    for bit, plane in enumerate(planes):
        values |= plane.astype(np.uint64) << np.uint64(bit)
    return values
