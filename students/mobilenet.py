"""MobileNetV1 (Howard et al., arXiv:1704.04861, table 1) and MobileNetV2 (Sandler et al., arXiv:1801.04381, table 2).

V2 is torchvision's, so its weights load.
"""

import math

from torch import nn
from torchvision.models import MobileNetV2 as TorchvisionMobileNetV2
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count, Width
from students import student
from students._blocks import Network, head, initialised, stem

V1_STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))
"""Output channels and number of blocks, stage by stage."""

V2_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
"""Expansion, output channels and number of blocks, stage by stage."""


@student("mobilenet_v1")
def mobilenet_v1(
    *, num_classes: Count = 1000, width: Width = 1.0, small_images: bool = False, channels: Count = 3
) -> nn.Module:
    """Depthwise-separable convolutions, one after the other.

    Args:
        num_classes: size of the output.
        width: multiplies every number of channels; the paper has 0.25, 0.5, 0.75 and 1.
        small_images: the first convolution has stride 1.
        channels: of the input.

    Raises:
        ValueError: a width that is not above 0.
    """
    _check(width)
    inputs = max(1, round(32 * width))
    first = Conv2dNormActivation(channels, inputs, stride=1 if small_images else 2, inplace=False)
    layers: dict[str, nn.Module] = {"stem": first}
    for number, (outputs, blocks) in enumerate(V1_STAGES, start=1):
        outputs = max(1, round(outputs * width))
        rest = [_separable(outputs, outputs, stride=1) for _ in range(blocks - 1)]
        layers[f"stage{number}"] = nn.Sequential(_separable(inputs, outputs, stride=min(number, 2)), *rest)
        inputs = outputs
    return initialised(Network(layers | head(inputs, num_classes), stages=("stage2", "stage3", "stage4", "stage5")))


def _separable(inputs: int, outputs: int, *, stride: int) -> nn.Module:
    return nn.Sequential(
        Conv2dNormActivation(inputs, inputs, 3, stride, groups=inputs, inplace=False),
        Conv2dNormActivation(inputs, outputs, 1, inplace=False),
    )


@student("mobilenet_v2")
def mobilenet_v2(
    *, num_classes: Count = 1000, width: Width = 1.0, small_images: bool = False, channels: Count = 3
) -> nn.Module:
    """Inverted residuals: expand, filter each channel, project linearly; shortcuts join the narrow ends.

    Args:
        num_classes: size of the output.
        width: multiplies every number of channels, rounded to multiples of 8; the last layer never has below 1280.
        small_images: the first convolution and the second stage have stride 1.
        channels: of the input.

    Raises:
        ValueError: a width that is not above 0.
    """
    _check(width)
    return MobileNetV2(num_classes, width, small_images, channels)


class MobileNetV2(TorchvisionMobileNetV2):
    """torchvision's network, with fewer strides for small images."""

    stages = ("features.3", "features.6", "features.13", "features.17")

    def __init__(self, num_classes: int, width: float, small_images: bool, channels: int) -> None:
        strides = (1, 1 if small_images else 2, 2, 2, 1, 2, 1)
        setting = [[*stage, stride] for stage, stride in zip(V2_STAGES, strides, strict=True)]
        super().__init__(num_classes, width, setting)
        self.features[0][0] = stem(self.features[0][0], channels=channels, small_images=small_images)


def _check(width: float) -> None:
    if not 0 < width < math.inf:
        raise ValueError(f"width is {width}, but must be a number above 0, such as 0.25, 0.5, 0.75 or 1")
