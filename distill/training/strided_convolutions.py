"""1x1 convolutions with a stride, whose gradients on CPUs cannot be trusted where they read few channels.

oneDNN's gradient of their weights writes behind its workspace where the images are laid out channels last and there are
fewer input channels than it takes at a time, as in the shortcuts of narrow residual networks: wrong gradients, hangs,
crashes (its issue 6035, in PyTorch 2.14 too). ``torch.compile`` chooses that layout by itself. The convolution is the
same as one without a stride of every other pixel, which is computed in its place.
"""

from collections.abc import Iterable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 16
"""Channels that oneDNN takes at a time with AVX-512; 8 with AVX2."""
METHOD = "_conv_forward"
"""Through which `nn.Conv2d`, its parametrized forms too, computes."""


def subsample_first(module: nn.Module) -> None:
    """Let the convolutions in question leave pixels out before they compute, until `subsample_within`."""
    for layer in convolutions(module):
        stride, groups = layer.stride, layer.groups
        setattr(layer, METHOD, partial(_of_every_other_pixel, stride=stride, groups=groups))


def subsample_within(module: nn.Module) -> None:
    """As the networks were."""
    for layer in convolutions(module):
        layer.__dict__.pop(METHOD, None)


def convolutions(module: nn.Module) -> Iterable[nn.Conv2d]:
    """Those in question."""
    for layer in module.modules():
        if (
            isinstance(layer, nn.Conv2d)
            and layer.in_channels // layer.groups < BLOCK
            and (set(layer.kernel_size), layer.padding, layer.padding_mode) == ({1}, (0, 0), "zeros")
            and max(layer.stride) > 1
        ):
            yield layer


def _of_every_other_pixel(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, *, stride: tuple[int, ...], groups: int
) -> Tensor:
    rows, columns = stride
    return F.conv2d(inputs[..., ::rows, ::columns], weight, bias, groups=groups)
