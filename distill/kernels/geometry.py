"""What is known of a convolution without its weights: which positions meet, how often, in how many bytes.

Chellapilla, Puri & Simard: High Performance Convolutional Neural Networks for Document Processing (2006), for im2col.
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from torch import nn

from distill.kernels._native import Shape

Pair = tuple[int, int]
FLOAT = 4
"""Bytes."""


@dataclass(frozen=True)
class Geometry:
    """The settings of a two-dimensional convolution with zeros around its input."""

    in_channels: int
    out_channels: int
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "Geometry":
        """That of a layer.

        Raises:
            ValueError: it pads with something else than zeros, or not alike on opposite sides.
        """
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        if conv.padding_mode != "zeros":
            raise ValueError(f"padding_mode is {conv.padding_mode}, but must be zeros")
        if (left, top) != (right, bottom):
            raise ValueError(f"padding is {conv.padding}, which differs between sides, but must be one number for both")
        return cls(
            conv.in_channels,
            conv.out_channels,
            _pair(conv.kernel_size),
            _pair(conv.stride),
            (top, left),
            _pair(conv.dilation),
            conv.groups,
        )

    def dense(self, bias: bool) -> nn.Conv2d:
        """A layer of that geometry, its weights not initialised."""
        settings: dict[str, Any] = asdict(self)
        return nn.utils.skip_init(nn.Conv2d, **settings, bias=bias)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(out_channels, in_channels of a group, height, width)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def weights(self) -> int:
        """How many, without bias."""
        return prod(self.weight_shape)

    def output_size(self, height: int, width: int) -> Pair:
        """Height and width of the output, of an input of that size."""
        above, across = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, padding, dilation, kernel, stride in zip(
                (height, width), self.padding, self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        return above, across

    def takes(self, channels: int, height: int, width: int) -> bool:
        """Whether there is an output for images of that size."""
        return channels == self.in_channels and min(self.output_size(height, width)) > 0

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates for one image of that size; those with padding count, as published figures have it."""
        return self.weights * prod(self.output_size(height, width))

    def im2col_bytes(self, height: int, width: int) -> int:
        """What lowering one image to a matrix takes: a column of inputs for every output position, in float32."""
        rows = self.in_channels * prod(self.kernel_size)
        return FLOAT * rows * prod(self.output_size(height, width))

    def shape(self, images: int, height: int, width: int, **settings: int) -> Shape:
        """The same for the kernels; ``settings`` are the fields that only one of them reads."""
        out_height, out_width = self.output_size(height, width)
        pairs = {
            f"{name.removesuffix('_size')}_{side}": value
            for name in ("kernel_size", "stride", "padding", "dilation")
            for side, value in zip(("height", "width"), getattr(self, name), strict=True)
        }
        return Shape(
            images=images,
            channels=self.in_channels,
            height=height,
            width=width,
            outputs=self.out_channels,
            out_height=out_height,
            out_width=out_width,
            **pairs,
            **settings,
        )


def _pair(values: tuple[int, ...]) -> Pair:
    first, second = values
    return first, second
