"""Layers that keep their weight in another form and run as plain ones."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init


class PlainLayer(NamedTuple):
    """A linear layer or a convolution."""

    weight: Tensor
    bias: Tensor | None
    geometry: dict[str, Any] | None
    """Stride, padding and dilation of a convolution where they are not the defaults; None: a linear layer."""


class Composed(nn.Module, ABC):
    """Computes with plain layers, one after the other, whose weights follow from its parameters."""

    @abstractmethod
    def plain_layers(self) -> Iterator[PlainLayer]:
        """The layers, in order."""

    def forward(self, input: Tensor) -> Tensor:
        for weight, bias, geometry in self.plain_layers():
            input = F.linear(input, weight, bias) if geometry is None else F.conv2d(input, weight, bias, **geometry)
        return input

    @torch.no_grad()
    def deploy(self) -> nn.Module:
        """The same function in modules of PyTorch."""
        plain = []
        for weight, bias, geometry in self.plain_layers():
            like: dict[str, Any] = {"bias": bias is not None, "device": weight.device, "dtype": weight.dtype}
            ends = (weight.shape[1], weight.shape[0])
            if geometry is None:
                plain.append(skip_init(nn.Linear, *ends, **like))
            else:
                plain.append(skip_init(nn.Conv2d, *ends, kernel_size=tuple(weight.shape[2:]), **geometry, **like))
            plain[-1].weight.copy_(weight)
            if bias is not None:
                plain[-1].bias.copy_(bias)
        return nn.Sequential(*plain) if len(plain) > 1 else plain[0]
