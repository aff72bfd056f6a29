"""U-Net (Ronneberger et al., arXiv:1505.04597, figure 1) with batch norms and padded convolutions.

Departs from it as usual today: enlarging is bilinear and without weights, so the deepest level has no more channels
than the one before it.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count
from students import student
from students._blocks import initialised, require


@student("unet")
def unet(
    *,
    num_classes: Count = 21,
    width: Count = 64,
    levels: Count = 4,
    first_stride: Count = 1,
    separable: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """Logits for every pixel: (batch, num_classes, height, width) of images of any size.

    Args:
        num_classes: channels of the output.
        width: channels of the first level; every further one has twice as many, the deepest as many as the one before.
        levels: how often the resolution is halved; 2 to 4.
        first_stride: 2 halves the resolution in the first convolution; logits are then enlarged to the image's size.
        separable: depthwise convolutions of 3x3 and pointwise ones in place of all convolutions but the first.
        channels: of the input.

    Raises:
        ValueError: another number of levels, or another stride.
    """
    require("levels", levels, (2, 3, 4))
    require("first_stride", first_stride, (1, 2))
    return initialised(UNet(num_classes, width, levels, first_stride, separable, channels))


class UNet(nn.Module):
    """An encoder, and a decoder that reads the encoder's map of each level again."""

    def __init__(
        self, num_classes: int, width: int, levels: int, first_stride: int, separable: bool, channels: int
    ) -> None:
        super().__init__()
        widths = [width * 2 ** min(level, levels - 1) for level in range(levels + 1)]
        self.stem = nn.Sequential(
            Conv2dNormActivation(channels, width, stride=first_stride, inplace=False),
            _convolution(width, width, separable),
        )
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(_double(inputs, outputs, outputs, separable) for inputs, outputs in pairwise(widths))
        self.up = nn.ModuleList(
            _double(2 * widths[level], widths[level], widths[max(level - 1, 0)], separable)
            for level in reversed(range(levels))
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        self.stages = tuple(f"down.{level}" for level in range(levels))

    def forward(self, images: Tensor) -> Tensor:
        maps = [self.stem(images)]
        for block in self.down:
            maps.append(block(self.pool(maps[-1])))
        features = maps.pop()
        for block, skipped in zip(self.up, reversed(maps), strict=True):
            features = block(torch.cat([skipped, _enlarged(features, skipped)], 1))
        return _enlarged(self.head(features), images)


def _double(inputs: int, inner: int, outputs: int, separable: bool) -> nn.Module:
    return nn.Sequential(_convolution(inputs, inner, separable), _convolution(inner, outputs, separable))


def _convolution(inputs: int, outputs: int, separable: bool) -> nn.Module:
    if not separable:
        return Conv2dNormActivation(inputs, outputs, inplace=False)
    return nn.Sequential(
        Conv2dNormActivation(inputs, inputs, groups=inputs, inplace=False),
        Conv2dNormActivation(inputs, outputs, 1, inplace=False),
    )


def _enlarged(features: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of another map."""
    if features.shape[2:] == like.shape[2:]:
        return features
    return F.interpolate(features, like.shape[2:], mode="bilinear")
