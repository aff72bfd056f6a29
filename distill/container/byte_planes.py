"""One array as compressed bytes: the first bytes of all its values, then the second ones, and so on.

Each such plane is compressed by itself, so that the exponents of floats are neighbours.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import zstandard

from distill.container.raw import SIZES, Raw

LEVEL = 19
MAGIC = zstandard.FRAME_HEADER
"""Begins every zstd frame; not kept."""
WINDOW = 2**24
"""Bytes that a zstd decoder may have to remember; `LEVEL` asks for no more than half of it."""


def compress(raw: Raw) -> tuple[list[int], bytes]:
    """Lengths and data, whichever is shorter: all planes in one zstd frame, whose length is then the only one, or a
    length for each plane, 0 where it is kept as it is."""
    values = np.frombuffer(raw.data, np.uint8).reshape(-1, SIZES[raw.kind])
    planes = [plane.tobytes() for plane in values.T]
    frames = [_zip(plane) for plane in planes]
    lengths = [len(frame) * (len(frame) < len(plane)) for frame, plane in zip(frames, planes, strict=True)]
    kept = zip(frames, planes, lengths, strict=True)
    apart = b"".join(frame if length else plane for frame, plane, length in kept)
    together = _zip(b"".join(planes))
    if len(planes) > 1 and len(together) < len(apart):
        return [len(together)], together
    return lengths, apart


def size(shape: Sequence[int], lengths: Sequence[int]) -> int:
    """Bytes that `compress` wrote."""
    return sum(length or prod(shape) for length in lengths)


def decompress(data: bytes, kind: str, shape: Sequence[int], lengths: Sequence[int]) -> Raw:
    """The inverse of `compress`; ``data`` has `size` bytes, and ``shape`` is one that memory has been granted for.

    Raises:
        ValueError: the bytes are no such array.
    """
    width, count = SIZES[kind], prod(shape)
    if len(lengths) == width:
        planes, at = [], 0
        for length in lengths:
            part = data[at : at + (length or count)]
            planes.append(unzip(part, count) if length else part)
            at += len(part)
        joined = b"".join(planes)
    elif len(lengths) == 1:
        joined = unzip(data, count * width)
    else:
        raise ValueError(f"{len(lengths)} planes of {kind}")
    values = np.frombuffer(joined, np.uint8).reshape(width, count).T
    if kind == "bool" and count and values.max() > 1:
        raise ValueError("bool values above 1")
    return Raw(kind, tuple(shape), values.tobytes())


def _zip(content: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=False)
    return compressor.compress(content).removeprefix(MAGIC)


def unzip(frame: bytes, count: int) -> bytes:
    """The content of a zstd frame, its magic number left out, that has exactly so many bytes.

    Raises:
        ValueError: it has not, or it is no such frame.
    """
    try:
        with zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(MAGIC + frame) as reader:
            content = reader.read(count)
            more = reader.read(1)
    except zstandard.ZstdError as error:
        raise ValueError(f"no zstd frame: {error}") from None
    if len(content) != count or more:
        raise ValueError(f"a zstd frame with {'more' if more else 'fewer'} than {count} bytes")
    return content
