"""Networks that repaint a picture: Johnson, Alahi & Fei-Fei: Perceptual Losses for Real-Time Style Transfer and
Super-Resolution. arXiv:1603.08155, and its supplementary material for the layers.

As usual since then: instance norms (Ulyanov, Vedaldi & Lempitsky, arXiv:1607.08022) in place of batch norms, reflection
padding, and enlarging by nearest neighbours before a convolution in place of transposed convolutions, which leave a
checkerboard (Odena, Dumoulin & Olah, Distill, 2016).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from distill.registry.ranges import Count
from students import student
from students._blocks import require

KERNELS = (3, 5, 7, 9)


@student("style_net")
def style_net(
    *, width: Count = 32, blocks: Count = 5, kernel: Count = 9, separable: bool = False, channels: Count = 3
) -> nn.Module:
    """Pictures (batch, channels, height, width) to pictures of the same size; 16 pixels or more on a side.

    Args:
        width: channels of the first convolution; there are twice and four times as many further in.
        blocks: residual blocks.
        kernel: height and width of the first and the last convolution: 3, 5, 7 or 9.
        separable: depthwise convolutions and pointwise ones in place of all but the first one.
        channels: of the pictures.

    Raises:
        ValueError: another kernel.
    """
    require("kernel", kernel, KERNELS)
    return StyleNet(width, blocks, kernel, separable, channels)


@student("light_style_net")
def light_style_net(
    *, width: Count = 8, blocks: Count = 3, kernel: Count = 5, separable: bool = True, channels: Count = 3
) -> nn.Module:
    """`style_net` with few channels, few blocks, small kernels and separable convolutions.

    Args:
        width, blocks, kernel, separable, channels: as of `style_net`.

    Raises:
        ValueError: another kernel.
    """
    require("kernel", kernel, KERNELS)
    return StyleNet(width, blocks, kernel, separable, channels)


class StyleNet(nn.Module):
    """Halves the resolution twice, repaints, and doubles it twice."""

    def __init__(self, width: int, blocks: int, kernel: int, separable: bool, channels: int) -> None:
        super().__init__()
        self.stem = _layer(channels, width, kernel)
        self.down1 = _layer(width, 2 * width, 3, stride=2, separable=separable)
        self.down2 = _layer(2 * width, 4 * width, 3, stride=2, separable=separable)
        self.blocks = nn.Sequential(*(Residual(4 * width, separable) for _ in range(blocks)))
        self.up1 = _layer(4 * width, 2 * width, 3, doubled=True, separable=separable)
        self.up2 = _layer(2 * width, width, 3, doubled=True, separable=separable)
        self.last = nn.Sequential(nn.ReflectionPad2d(kernel // 2), *_convolution(width, channels, kernel, 1, separable))
        self.stages = ("down1", "down2", "blocks")

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.blocks(self.down2(self.down1(self.stem(pictures))))
        height, width = pictures.shape[2:]
        # Sides that are no multiples of 4 come back up to 3 pixels longer.
        return self.last(self.up2(self.up1(features)))[:, :, :height, :width]


class Residual(nn.Module):
    """Two convolutions around which the input is added, without an activation after the sum."""

    def __init__(self, channels: int, separable: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _layer(channels, channels, 3, separable=separable),
            _layer(channels, channels, 3, separable=separable, activated=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.branch(features)


class Doubled(nn.Module):
    """Twice the height and width, by nearest neighbours."""

    def forward(self, features: Tensor) -> Tensor:
        return F.interpolate(features, scale_factor=2.0, mode="nearest")


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, separable: bool) -> list[nn.Module]:
    if not separable:
        return [nn.Conv2d(inputs, outputs, kernel, stride)]
    return [nn.Conv2d(inputs, inputs, kernel, stride, groups=inputs, bias=False), nn.Conv2d(inputs, outputs, 1)]


def _layer(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    doubled: bool = False,
    separable: bool = False,
    activated: bool = True,
) -> nn.Sequential:
    """Reflection padding, convolution, instance norm, ReLU."""
    return nn.Sequential(
        *([Doubled()] if doubled else []),
        nn.ReflectionPad2d(kernel // 2),
        *_convolution(inputs, outputs, kernel, stride, separable),
        nn.InstanceNorm2d(outputs, affine=True),
        *([nn.ReLU()] if activated else []),
    )
