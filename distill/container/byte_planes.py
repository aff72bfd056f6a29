"""One tensor as compressed bytes: the first bytes of all its values, then the second ones, and so on.

Each such plane is compressed by itself, so that the exponents of floats are neighbours.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
import zstandard
from torch import Tensor

LEVEL = 19
MAGIC = zstandard.FRAME_HEADER
"""Begins every zstd frame; not kept."""
WINDOW = 2**24
"""Bytes that a zstd decoder may have to remember; `LEVEL` asks for no more than half of it."""
TYPES = {
    name: getattr(torch, name)
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
}


def compress(tensor: Tensor) -> tuple[list[int], bytes]:
    """Lengths and data, whichever is shorter: all planes in one zstd frame, whose length is then the only one, or a
    length for each plane, 0 where it is kept as it is."""
    planes = [plane.tobytes() for plane in raw(tensor).reshape(-1, tensor.itemsize).T]
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


def decompress(data: bytes, kind: str, shape: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """The inverse of `compress`; ``data`` has `size` bytes, and ``shape`` is one that memory has been granted for.

    Raises:
        ValueError: the bytes are no such tensor.
    """
    dtype, count = TYPES[kind], prod(shape)
    if len(lengths) == dtype.itemsize:
        planes, at = [], 0
        for length in lengths:
            part = data[at : at + (length or count)]
            planes.append(unzip(part, count) if length else part)
            at += len(part)
        joined = b"".join(planes)
    elif len(lengths) == 1:
        joined = unzip(data, count * dtype.itemsize)
    else:
        raise ValueError(f"{len(lengths)} planes of {kind}")
    values = np.frombuffer(joined, np.uint8).reshape(dtype.itemsize, count).T.copy()
    if dtype == torch.bool and count and values.max() > 1:
        raise ValueError("bool values above 1")
    return torch.from_numpy(values.ravel()).view(dtype).reshape(tuple(shape))


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


def raw(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor of any type."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
