"""In which order memory holds the weights of a network."""

from itertools import chain

import torch
from torch import nn


def to_memory_format(module: nn.Module, memory_format: torch.memory_format) -> None:
    """As ``module.to(memory_format=memory_format)``, which fails where a 3-D convolution's weight is to be channels
    last: tensors of other than four dimensions stay as they are."""
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=memory_format)
