"""Chen et al.: All You Need is a Few Shifts: Designing Efficient Convolutional Neural Networks for Image
Classification. arXiv:1903.05285: the sparse shift layer and FE-Net.

Widths inside the blocks are multiples of a block's inputs, which gives the MACs of the paper (301 M and 563 M); the
authors' code (hikvision-research/SparseShiftLayer) multiplies its outputs, which is ``expands="outputs"``. That code
also truncates offsets toward zero where it interpolates; here they are rounded down, so that the gradient is that of
the bilinear form for negative offsets too.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count, NonNegative, Width
from students import student
from students._blocks import Network, head, initialised, require
from students.shiftnet import grid, one_hot

Expands = Literal["inputs", "outputs"]

FEATURES = {1.0: 1380, 1.375: 1932}
"""Channels before the classifier, by width."""


FARTHEST = 3
"""Pixels that a channel is moved by a convolution where that is exported; a window of 7x7."""


class SparseShift(nn.Module):
    """Moves each channel by an offset of its own that is learned; zeros come in.

    It computes with offsets that are rounded, so after training it is a plain shift. An offset learns as if the channel
    had been interpolated bilinearly at the offset itself.

    Args:
        channels: of the input.
        sparsity: weight of the sum of the offsets' absolute values, which is no part of the loss that is shown: its
            gradient is added here. It draws offsets to 0, where a channel need not be moved.
    """

    def __init__(self, channels: int, sparsity: float = 0.0) -> None:
        super().__init__()
        self.sparsity = sparsity
        offsets = grid(3)
        start = [offsets[i // (channels // 9)] if i < channels // 9 * 9 else (0, 0) for i in range(channels)]
        self.shift = nn.Parameter(torch.tensor(start, dtype=torch.get_default_dtype()))  # rows and columns

    def forward(self, x: Tensor) -> Tensor:
        return _Shifted.apply(x, self.shift, self.sparsity)

    def deploy(self) -> nn.Module:
        """The same without learning."""
        return FixedShift(self.shift.detach().round().long())


class FixedShift(nn.Module):
    """Moves each channel by whole pixels: (channels, 2), rows and columns.

    It is exported as a depthwise convolution, if offsets are short enough for a small one.
    """

    offsets: Tensor
    kernel: Tensor | None

    def __init__(self, offsets: Tensor) -> None:
        super().__init__()
        self.register_buffer("offsets", offsets)
        reach = int(offsets.abs().max())
        kernel = one_hot(offsets.tolist(), reach) if reach <= FARTHEST else None
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel is not None and torch.compiler.is_exporting():
            return F.conv2d(x, self.kernel, padding=self.kernel.shape[2] // 2, groups=len(self.kernel))
        return moved(x, self.offsets)


class _Shifted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, sparsity: float) -> Tensor:
        ctx.save_for_backward(x, shift)
        ctx.sparsity = sparsity
        return moved(x, shift.round())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, shift = ctx.saved_tensors
        to_x = moved(gradient, -shift.round()) if ctx.needs_input_grad[0] else None
        to_shift = None
        if ctx.needs_input_grad[1]:
            to_shift = _interpolated_gradient(x, shift, gradient) + ctx.sparsity * shift.sign()
        return to_x, to_shift, None


def _interpolated_gradient(x: Tensor, shift: Tensor, gradient: Tensor) -> Tensor:
    """Of the sum of ``gradient`` times ``x`` interpolated at ``shift``: (channels, 2)."""
    corner = shift.floor()
    down, right = (shift - corner).unbind(1)
    (upper_left, upper_right), (lower_left, lower_right) = (
        [(gradient * moved(x, corner + corner.new_tensor([row, column]))).sum((0, 2, 3)) for column in (0, 1)]
        for row in (0, 1)
    )
    rows = (1 - right) * (lower_left - upper_left) + right * (lower_right - upper_right)
    columns = (1 - down) * (upper_right - upper_left) + down * (lower_right - lower_left)
    return torch.stack([rows, columns], dim=1)


def moved(x: Tensor, offsets: Tensor) -> Tensor:
    """What is ``offsets`` away from each pixel, or 0 outside of the map.

    Args:
        x: (batch, channels, height, width).
        offsets: whole numbers of rows and columns: (channels, 2).
    """
    height, width = x.shape[2:]
    dy, dx = offsets.long().unbind(1)
    rows = torch.arange(height, device=x.device) + dy[:, None]
    columns = torch.arange(width, device=x.device) + dx[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    start = rows.clamp(0, height - 1)[:, :, None] * width
    if torch.compiler.is_exporting():  # else the sum, larger than all weights, would be a constant of the file
        start = start.expand(len(x), -1, -1, -1)
    pixels = (start + columns.clamp(0, width - 1)[:, None]).flatten(-2)
    found = x.flatten(2).gather(2, pixels.expand(len(x), -1, -1))
    return found.unflatten(2, (height, width)).where(inside, 0)


class Bottleneck(nn.Module):
    """Widen, mix pixels without a convolution, narrow: the paper's IB; a sum with the input if ``residual``."""

    def __init__(self, inputs: int, outputs: int, middle: int, mix: nn.Module, *, residual: bool = False) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            Conv2dNormActivation(inputs, middle, 1, inplace=False),
            mix,
            Conv2dNormActivation(middle, outputs, 1, activation_layer=None),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.residual else self.branch(x)


class FeatureBlock(nn.Module):
    """Channels that are computed on again and again, ever more of them: the paper's FE-block.

    The last of ``splits`` groups goes through a bottleneck, then together with the group before it through another one,
    and so on; at last all channels go through ``end``.
    """

    def __init__(self, channels: int, splits: int, end: nn.Module, sparsity: float) -> None:
        super().__init__()
        group = channels // 2 ** (splits - 1)
        self.sizes = [group * 2**i for i in reversed(range(splits - 1))] + [group]
        self.parts = nn.ModuleList(
            Bottleneck(width, width, 6 * width, SparseShift(6 * width, sparsity), residual=True)
            for width in (group * 2**i for i in range(splits - 1))
        )
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        *waiting, last = x.split(self.sizes, dim=1)
        last = self.parts[0](last)
        for group, part in zip(reversed(waiting[1:]), self.parts[1:]):
            last = part(torch.cat([group, last], dim=1))
        return self.end(torch.cat([waiting[0], last], dim=1))


@student("fe_net")
def fe_net(
    *,
    num_classes: Count = 1000,
    width: Width = 1.0,
    small_images: bool = False,
    channels: Count = 3,
    sparsity: NonNegative = 5e-4,
    expands: Expands = "inputs",
) -> nn.Module:
    """1x1 convolutions and a few shifts that are learned.

    Args:
        num_classes: size of the output.
        width: multiplies every number of channels, a multiple of 1/8; the paper has 1 and 1.375.
        small_images: the first convolution has stride 1.
        channels: of the input.
        sparsity: how strongly offsets are drawn to 0, see `SparseShift`; 0 and above. The paper gives no value.
        expands: whether a block's inner width is a multiple of its inputs, or of its outputs.

    Raises:
        ValueError: a width that leaves no whole number of channels, or a negative sparsity.
    """
    if not 0 < width < float("inf") or width % 0.125:
        raise ValueError(f"width is {width}, but must be a multiple of 1/8 above 0, such as 0.5, 1 or 1.375")
    if not 0 <= sparsity < float("inf"):
        raise ValueError(f"sparsity is {sparsity}, but must be a number from 0")
    require("expands", expands, ("inputs", "outputs"))
    first = round(16 * width)

    def pool(inputs: int, expansion: int = 6) -> nn.Module:
        outer = inputs if expands == "inputs" else 2 * inputs
        return Bottleneck(inputs, 2 * inputs, expansion * outer, nn.AvgPool2d(2))

    def shift(width: int, expansion: int = 6) -> nn.Module:
        return Bottleneck(width, width, expansion * width, SparseShift(expansion * width, sparsity))

    def block(multiple: int, splits: int, end: Any) -> nn.Module:
        return FeatureBlock(multiple * first, splits, end(multiple * first), sparsity)

    features = FEATURES.get(width, round(1380 * width))
    layers: dict[str, nn.Module] = {
        "stem": Conv2dNormActivation(channels, first, 3, 1 if small_images else 2, activation_layer=None),
        "stage1": nn.Sequential(shift(first, 4), pool(first, 5)),
        "stage2": block(2, 3, pool),
        "stage3": nn.Sequential(block(4, 4, pool), block(8, 4, shift)),
        "stage4": nn.Sequential(block(8, 4, pool), block(16, 3, shift)),
        "last": Conv2dNormActivation(16 * first, features, 1, inplace=False),
    }
    classifier = head(features, num_classes)
    fc = classifier.pop("fc")
    stages = ("stage1", "stage2", "stage3", "stage4")
    return initialised(Network(layers | classifier | {"dropout": nn.Dropout(0.2), "fc": fc}, stages))
