"""Many small tensors as one block of bytes.

Values of one type are laid out byte plane by byte plane, so that the exponents of all floats are neighbours, and each
plane is compressed by itself.
"""

import json
from collections.abc import Mapping

import numpy as np
import torch
import zstandard
from torch import Tensor

LEVEL = 19


def pack(tensors: Mapping[str, Tensor]) -> Tensor:
    """All tensors with their names, types and shapes, exactly, as one uint8 tensor."""
    blocks = [zstandard.compress(plane.tobytes(), LEVEL) for kind in _kinds(tensors) for plane in _planes(kind)]
    described = [[name, str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors.items()]
    head = zstandard.compress(json.dumps([described, [len(b) for b in blocks]], separators=(",", ":")).encode(), LEVEL)
    data = len(head).to_bytes(4, "little") + head + b"".join(blocks)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def unpack(block: Tensor) -> dict[str, Tensor]:
    """The inverse of `pack`."""
    data = block.numpy().tobytes()
    start = 4 + int.from_bytes(data[:4], "little")
    described, lengths = json.loads(zstandard.decompress(data[4:start]))
    ends = (start + np.cumsum(lengths)).tolist()
    blocks = iter([data[end - length : end] for end, length in zip(ends, lengths, strict=True)])
    tensors = {name: torch.empty(shape, dtype=getattr(torch, kind)) for name, kind, shape in described}
    for kind in _kinds(tensors):
        planes = [np.frombuffer(zstandard.decompress(next(blocks)), np.uint8) for _ in range(kind[0].itemsize)]
        raw = torch.from_numpy(np.stack(planes, axis=1).ravel()).view(kind[0].dtype)
        for tensor, values in zip(kind, raw.split([t.numel() for t in kind]), strict=True):
            tensor.copy_(values.view(tensor.shape))
    return tensors


def raw(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor of any type."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _kinds(tensors: Mapping[str, Tensor]) -> list[list[Tensor]]:
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors.values():
        kinds.setdefault(tensor.dtype, []).append(tensor)
    return list(kinds.values())


def _planes(tensors: list[Tensor]) -> list[np.ndarray]:
    values = np.concatenate([raw(tensor) for tensor in tensors]).reshape(-1, tensors[0].itemsize)
    return [np.ascontiguousarray(plane) for plane in values.T]
