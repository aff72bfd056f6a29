"""Dong et al.: More is Less: A More Complicated Network with Less Inference Complexity. arXiv:1703.08651.

A collaborative layer tells where a convolution's output would be zero, and there it need not be computed. The form is
that of the authors' code (D-X-Y/DXY-Projects, LCCL): a 1x1 convolution to one channel, which all outputs share.
"""

from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from students import student
from students.wide_resnet import Block, preactivated


class Gated(nn.Module):
    """A convolution times a gate of 0 and above for each pixel: conv(x) * ReLU(BN(1x1 convolution of x)).

    The gate adds as many parameters as ``conv`` has inputs, and two. After training, pixels whose gate is 0 can be left
    out: see `skip`.

    Args:
        conv: what is gated.

    Raises:
        ValueError: a convolution with groups, dilation or padding that is not of zeros.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError("only a convolution without groups and dilation, padded with a number of zeros, is gated")
        self.conv = conv
        self.gate = nn.Sequential(
            nn.Conv2d(conv.in_channels, 1, 1, (conv.stride[0], conv.stride[1]), bias=False),
            nn.BatchNorm2d(1),
            nn.ReLU(),
        )
        self.skips = False

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        if self.skips and not self.training:
            return self._at_kept_pixels(x, gate)
        return self.conv(x) * gate

    def _at_kept_pixels(self, x: Tensor, gate: Tensor) -> Tensor:
        """The same product, as one matrix multiplication of the windows around pixels whose gate is above 0."""
        image, row, column = gate[:, 0].nonzero(as_tuple=True)
        assert not isinstance(self.conv.padding, str)
        (height, width), (down, right), (top, left) = self.conv.kernel_size, self.conv.stride, self.conv.padding
        pixels = F.pad(x, [left, left, top, top]).permute(0, 2, 3, 1)
        rows = (row * down)[:, None] + torch.arange(height, device=x.device)
        columns = (column * right)[:, None] + torch.arange(width, device=x.device)
        windows = pixels[image[:, None, None], rows[:, :, None], columns[:, None]]  # (kept, height, width, inputs)
        kept = F.linear(windows.flatten(1), self.conv.weight.permute(0, 2, 3, 1).flatten(1), self.conv.bias)
        output = x.new_zeros(len(x), *gate.shape[2:], self.conv.out_channels)
        output[image, row, column] = kept * gate[image, 0, row, column, None]
        return output.permute(0, 3, 1, 2)


def skip(network: nn.Module, on: bool = True) -> nn.Module:
    """The same network; where it evaluates, its gated convolutions compute only what their gates keep.

    Which pixels these are depends on the image, so it is exported without.
    """
    for module in network.modules():
        if isinstance(module, Gated):
            module.skips = on
    return network


class Saving(NamedTuple):
    """MACs of gated convolutions, a mean over images."""

    macs: float
    """Of all of them, computed in full and without gates."""
    saved: float
    """What the gates leave out, less what they cost; below 0 if they keep almost everything."""
    blocks_saved: float
    """The same, but a block with a convolution whose output is all zeros counts as left out: with both convolutions and
    at no cost, as in the authors' code."""


@torch.no_grad()
def saving(network: nn.Module, images: Tensor) -> Saving:
    """What the gates of a network save on some images, by the formula of the authors' code.

    Of a convolution of M MACs whose gate is zero on a part z of its pixels they save z M - M / (window * inputs).

    Args:
        network: is put into evaluation mode.
        images: (batch, channels, height, width).
    """
    gates: dict[nn.Module, Tensor] = {}
    own = [[module for module in block.children() if isinstance(module, Gated)] for block in network.modules()]
    blocks = [convolutions for convolutions in own if convolutions]
    with ExitStack() as hooks:
        for module in chain.from_iterable(blocks):
            hooks.enter_context(module.gate.register_forward_hook(partial(_note, gates)))
        network.eval()(images)
    total, saved, blocks_saved = torch.zeros(3, len(images), dtype=torch.float64, device=images.device)
    for convolutions in blocks:
        macs = [gates[module.gate][0].numel() * module.conv.weight.numel() for module in convolutions]
        zeros = [(gates[module.gate] == 0).double().mean((1, 2, 3)) for module in convolutions]
        cost = [1 / module.conv.weight[0].numel() for module in convolutions]
        parts = sum(m * (z - c) for m, z, c in zip(macs, zeros, cost, strict=True))
        idle = torch.stack(zeros).eq(1).any(0)
        total += sum(macs)
        saved += parts
        blocks_saved += torch.where(idle, float(sum(macs)), parts)
    return Saving(*(value.mean().item() for value in (total, saved, blocks_saved)))


def _note(gates: dict[nn.Module, Tensor], gate: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
    gates[gate] = output


class GatedBlock(Block):
    """A pre-activation block, both of its 3x3 convolutions gated."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.set_submodule("conv1", Gated(self.conv1))
        self.set_submodule("conv2", Gated(self.conv2))


@student("lccl_resnet20")
def lccl_resnet20(*, num_classes: int = 10, channels: int = 3) -> nn.Module:
    """A pre-activation ResNet-20 for images of about 32x32 whose blocks compute nothing where a gate is zero."""
    network = preactivated(GatedBlock, blocks=3, width=1, num_classes=num_classes, channels=channels)
    for name, parameter in network.named_parameters():
        if name.endswith("gate.0.weight"):
            # Before batch norms have statistics, gates of usual size would square activations again and again.
            nn.init.normal_(parameter, std=0.01)
    return network
