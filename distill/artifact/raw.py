"""Tensors as the arrays of a file, and back."""

import torch
from torch import Tensor

from distill.container.raw import Raw


def to_raw(tensor: Tensor) -> Raw:
    """The bytes of a tensor of any type on any device."""
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return Raw(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), values.tobytes())


def to_tensor(raw: Raw) -> Tensor:
    """A tensor of one's own with these values."""
    values = torch.frombuffer(bytearray(raw.data), dtype=torch.uint8) if len(raw.data) else torch.empty(0).byte()
    return values.view(getattr(torch, raw.kind)).reshape(raw.shape)
