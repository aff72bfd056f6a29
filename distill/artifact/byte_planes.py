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
    """The number of bytes of each compressed plane, 0 where it is kept as it is, and all planes."""
    planes = [plane.tobytes() for plane in raw(tensor).reshape(-1, tensor.itemsize).T]
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=False)
    frames = [compressor.compress(plane).removeprefix(MAGIC) for plane in planes]
    smaller = [len(frame) < len(plane) for frame, plane in zip(frames, planes, strict=True)]
    lengths = [len(frame) if better else 0 for frame, better in zip(frames, smaller, strict=True)]
    kept = zip(frames, planes, smaller, strict=True)
    return lengths, b"".join(frame if better else plane for frame, plane, better in kept)


def size(shape: Sequence[int], lengths: Sequence[int]) -> int:
    """Bytes that `compress` wrote."""
    return sum(length or prod(shape) for length in lengths)


def decompress(data: bytes, kind: str, shape: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """The inverse of `compress`; ``data`` has `size` bytes, and ``shape`` is one that memory has been granted for.

    Raises:
        ValueError: the bytes are no such tensor.
    """
    dtype, count = TYPES[kind], prod(shape)
    if len(lengths) != dtype.itemsize:
        raise ValueError(f"{len(lengths)} planes of {kind}")
    planes, at = [], 0
    for length in lengths:
        part = data[at : at + (length or count)]
        planes.append(np.frombuffer(unzip(part, count) if length else part, np.uint8))
        at += len(part)
    values = torch.from_numpy(np.stack(planes, axis=1).ravel())
    if dtype == torch.bool and values.numel() and values.max() > 1:
        raise ValueError("bool values above 1")
    return values.view(dtype).reshape(tuple(shape))


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
