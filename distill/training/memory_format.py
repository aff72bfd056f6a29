"""In which order memory holds the weights of a network."""

from collections.abc import Iterable
from itertools import chain

import torch
from torch import nn

BLOCK = 16
"""Channels that oneDNN's convolutions take at a time, with AVX-512; 8 with AVX2."""


def to_memory_format(module: nn.Module, memory_format: torch.memory_format) -> None:
    """As ``module.to(memory_format=memory_format)``, which fails where a 3-D convolution's weight is to be channels
    last: tensors of other than four dimensions stay as they are."""
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=memory_format)


def memory_format_on_cpu(networks: Iterable[nn.Module]) -> torch.memory_format:
    """The layout in which networks may be trained on a CPU: channels last, unless that would spoil memory.

    oneDNN's gradient of a 1x1 convolution with a stride and fewer input channels than a block, as in the shortcuts of
    narrow residual networks, writes behind its workspace in that layout: wrong gradients, hangs, crashes (oneDNN's
    issue 6035; in PyTorch 2.14 too).
    """
    layers = (layer for network in networks for layer in network.modules())
    return torch.contiguous_format if any(map(_spoils_memory, layers)) else torch.channels_last


def _spoils_memory(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d) or layer.in_channels // layer.groups >= BLOCK:
        return False
    return set(layer.kernel_size) == {1} and max(layer.stride) > 1
