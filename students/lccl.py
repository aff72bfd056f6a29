"""Dong et al.: More is Less: A More Complicated Network with Less Inference Complexity. arXiv:1703.08651.

A collaborative layer tells where a convolution's output would be zero, and there it need not be computed. The form is
that of the authors' code (D-X-Y/DXY-Projects, LCCL): a 1x1 convolution to one channel, which all outputs share, of
pixels or of cells of a grid. The paper also allows a gate for each output: ``full_width``.
"""

import math
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.registry.ranges import Count
from students import student
from students.wide_resnet import Block, preactivated


class Gate(nn.Sequential):
    """ReLU(BN(1x1 convolution)); of cells of a grid, it is interpolated between them before the ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int], grid: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        if self.grid == 1:
            return super().forward(x)
        convolution, normalise, relu = self
        cells = normalise(convolution(F.max_pool2d(x, self.grid, ceil_mode=True)))
        return relu(F.interpolate(cells, x.shape[2:], mode="bilinear", align_corners=True))


class Gated(nn.Module):
    """A convolution times a gate of 0 and above for each pixel: conv(x) * ReLU(BN(1x1 convolution of x)).

    The gate adds as many parameters as ``conv`` has inputs, and two; as many for each output if it has ``full_width``.
    After training, what its zeros multiply can be left out: see `skip`.

    Args:
        conv: what is gated.
        grid: the gate reads the maxima of cells of ``grid`` x ``grid`` pixels and is interpolated between them; 1 and
            above. As in the authors' code, a convolution with a stride has a gate for each pixel all the same.
        full_width: every output channel has a gate of its own.

    Raises:
        ValueError: a convolution with groups, dilation or padding that is not of zeros, or a grid below 1.
    """

    def __init__(self, conv: nn.Conv2d, *, grid: Count = 1, full_width: bool = False) -> None:
        super().__init__()
        if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError("only a convolution without groups and dilation, padded with a number of zeros, is gated")
        if grid < 1:
            raise ValueError(f"grid is {grid}, but a cell has at least 1 pixel on each side")
        self.conv = conv
        self.grid = grid if conv.stride == (1, 1) else 1
        stride = (conv.stride[0], conv.stride[1])
        self.gate: nn.Module = Gate(conv.in_channels, conv.out_channels if full_width else 1, stride, self.grid)
        self.skips = False

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        if self.skips and not self.training:
            return self._at_kept_pixels(x, gate)
        return self.conv(x) * gate

    def _at_kept_pixels(self, x: Tensor, gate: Tensor) -> Tensor:
        """The same product: for each gate one matrix multiplication, of the windows around pixels where it is not 0."""
        image, row, column = gate.any(1).nonzero(as_tuple=True)
        assert not isinstance(self.conv.padding, str)
        (height, width), (down, right), (top, left) = self.conv.kernel_size, self.conv.stride, self.conv.padding
        pixels = F.pad(x, [left, left, top, top]).permute(0, 2, 3, 1)
        rows = (row * down)[:, None] + torch.arange(height, device=x.device)
        columns = (column * right)[:, None] + torch.arange(width, device=x.device)
        windows = pixels[image[:, None, None], rows[:, :, None], columns[:, None]]  # (kept, height, width, inputs)
        kept = self._product(windows.flatten(1), gate[image, :, row, column])
        output = x.new_zeros(len(x), *gate.shape[2:], self.conv.out_channels)
        output[image, row, column] = kept
        return output.permute(0, 3, 1, 2)

    def _product(self, windows: Tensor, gates: Tensor) -> Tensor:
        """Windows (pixels, inputs of one output) times filters and gates (pixels, 1 or outputs): (pixels, outputs)."""
        filters = self.conv.weight.permute(0, 2, 3, 1).flatten(1)
        bias = filters.new_zeros(len(filters)) if self.conv.bias is None else self.conv.bias
        parts = []
        for gate, weight, shift in zip(gates.unbind(1), filters.chunk(gates.shape[1]), bias.chunk(gates.shape[1])):
            chosen = gate.nonzero()[:, 0]
            part = windows.new_zeros(len(windows), len(weight))
            part[chosen] = F.linear(windows[chosen], weight, shift) * gate[chosen, None]
            parts.append(part)
        return torch.cat(parts, dim=1)


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

    Of a convolution of M MACs whose gate is zero on a part z of its pixels they save z M - M / (window * inputs). The
    second term, the gate's cost, is ``inputs`` times that for a gate of full width, and with a grid it is multiplied by
    the cells for each pixel, and all values that the convolution takes and gives are added, which are pooled and
    interpolated.

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
        macs = [gates[module.gate][0, 0].numel() * module.conv.weight.numel() for module in convolutions]
        zeros = [(gates[module.gate] == 0).double().mean((1, 2, 3)) for module in convolutions]
        costs = [_cost(module, gates[module.gate]) for module in convolutions]
        parts = sum(m * z - cost for m, z, cost in zip(macs, zeros, costs, strict=True))
        idle = torch.stack(zeros).eq(1).any(0)
        total += sum(macs)
        saved += parts
        blocks_saved += torch.where(idle, float(sum(macs)), parts)
    return Saving(*(value.mean().item() for value in (total, saved, blocks_saved)))


def _cost(gated: Gated, gate: Tensor) -> float:
    """Of the gate of one convolution for one image, as the authors count it."""
    gates, height, width = gate.shape[1:]
    outputs, inputs = gated.conv.weight.shape[:2]
    each = outputs if gates == 1 else outputs * inputs
    if gated.grid == 1:
        return each * height * width
    cells = math.ceil(height / gated.grid) * math.ceil(width / gated.grid)
    return each * cells + (inputs + outputs) * height * width


def _note(gates: dict[nn.Module, Tensor], gate: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
    gates[gate] = output


class GatedBlock(Block):
    """A pre-activation block, both of its 3x3 convolutions gated."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, grid: Count = 1, full_width: bool = False) -> None:
        super().__init__(inputs, outputs, stride)
        self.set_submodule("conv1", Gated(self.conv1, grid=grid, full_width=full_width))
        self.set_submodule("conv2", Gated(self.conv2, grid=grid, full_width=full_width))


@student("lccl_resnet20")
def lccl_resnet20(
    *, num_classes: Count = 10, grid: Count = 1, full_width: bool = False, channels: Count = 3
) -> nn.Module:
    """A pre-activation ResNet-20 for images of about 32x32 whose blocks compute nothing where a gate is zero.

    Args:
        num_classes: size of the output.
        grid: cells of how many pixels, in height and in width, a gate decides about; see `Gated`.
        full_width: every output channel has a gate of its own.
        channels: of the input.

    Raises:
        ValueError: a grid below 1.
    """
    block = partial(GatedBlock, grid=grid, full_width=full_width)
    network = preactivated(block, blocks=3, width=1, num_classes=num_classes, channels=channels)
    for gate in [module for module in network.modules() if isinstance(module, Gate)]:
        _, normalise, _ = gate
        # A gate and what it multiplies are large at the same pixels: where gates begin anywhere, products square
        # activations block after block, gradients explode, and some seeds or all learn nothing.
        nn.init.constant_(normalise.get_parameter("weight"), 0.1)
        nn.init.ones_(normalise.get_parameter("bias"))
    return network
