"""Zhang, Franchetti & Low: High Performance Zero-Memory Overhead Direct Convolutions. arXiv:1809.10170: a convolution
computed in place, on layouts in which a block of channels is contiguous.

A tile of output columns times one block of output channels stays in registers while the filter and a block of input
channels pass by. Output has the input's layout, so layers follow each other without repacking, and blocked tensors are
as large as plain ones.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.kernels import _native
from distill.kernels.geometry import Geometry

BLOCKS = (16, 8, 1)
"""Channels to a block that the kernel knows, best first."""

Plain = Float[Tensor, "images channels height width"]
Blocked = Float[Tensor, "images blocks height width block"]


def block_of(channels: int) -> int:
    """The largest block that divides them, so that no channel is made up."""
    return next(block for block in BLOCKS if channels % block == 0)


def pack(images: Plain) -> Blocked:
    """(images, channels, height, width) to (images, channels / block, height, width, block)."""
    return images.unflatten(1, (-1, block_of(images.shape[1]))).movedim(2, -1).contiguous()


def unpack(images: Blocked) -> Plain:
    """The inverse of `pack`."""
    return images.movedim(-1, 2).flatten(1, 2).contiguous()


def pack_weight(weight: Float[Tensor, "outputs inputs height width"]) -> Float[Tensor, "o i height width ib ob"]:
    """(outputs, inputs, height, width) to (outputs / block, inputs / block, height, width, block, block)."""
    outputs, inputs = (block_of(size) for size in weight.shape[:2])
    blocks = weight.unflatten(1, (-1, inputs)).unflatten(0, (-1, outputs))  # (o, ob, i, ib, height, width)
    return blocks.permute(0, 2, 4, 5, 3, 1).contiguous()


def unpack_weight(weight: Float[Tensor, "o i height width ib ob"]) -> Float[Tensor, "outputs inputs height width"]:
    """The inverse of `pack_weight`."""
    return weight.permute(0, 5, 1, 4, 2, 3).flatten(2, 3).flatten(0, 1).contiguous()


class BlockedConv2d(nn.Module):
    """A convolution from blocked images to blocked images: see `pack`.

    Inference in float32 on the CPU runs in the compiled kernel, which allocates nothing but its output. All else,
    training included, unpacks, convolves and packs.

    Args:
        geometry: of the convolution.
        weight: as `pack_weight` gives it.
        bias: (out_channels), or None.

    Raises:
        ValueError: it has groups.
    """

    def __init__(self, geometry: Geometry, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        if geometry.groups != 1:
            raise ValueError(f"groups is {geometry.groups}, but must be 1: a block's channels are summed together")
        self.geometry = geometry
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    @classmethod
    def from_dense(cls, conv: nn.Conv2d) -> "BlockedConv2d":
        """The same function on blocked images.

        Raises:
            ValueError: the layer has groups, or pads with something else than zeros, or not alike on opposite sides.
        """
        bias = None if conv.bias is None else conv.bias.detach().clone()
        return cls(Geometry.of(conv), pack_weight(conv.weight.detach()), bias)

    def forward(self, inputs: Blocked) -> Float[Tensor, "images out_blocks out_height out_width out_block"]:
        g = self.geometry
        if (found := inputs.shape[1] * inputs.shape[4]) != g.in_channels or inputs.shape[4] != block_of(found):
            raise ValueError(
                f"images have {inputs.shape[1]} blocks of {inputs.shape[4]} channels, but must have "
                f"{g.in_channels // block_of(g.in_channels)} of {block_of(g.in_channels)}: see pack"
            )
        if not _native.runs(inputs, self.weight) or not g.takes(found, *inputs.shape[2:4]):
            weight = unpack_weight(self.weight)
            return pack(F.conv2d(unpack(inputs), weight, self.bias, g.stride, g.padding, g.dilation))
        images, _, height, width, in_block = inputs.shape
        above, across = g.output_size(height, width)
        out_block = block_of(g.out_channels)
        output = inputs.new_empty(images, g.out_channels // out_block, above, across, out_block)
        threads = torch.get_num_threads()
        shape = g.shape(images, height, width, in_block=in_block, out_block=out_block, threads=threads)
        _native.call("blocked_conv", shape, inputs.contiguous(), self.weight, self.bias, output)
        return output
