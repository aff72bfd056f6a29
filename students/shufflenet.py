"""ShuffleNet V1 (Zhang et al., arXiv:1707.01083, table 1) and V2 (Ma et al., arXiv:1807.11164, table 5).

V2 is torchvision's, so its weights load. V1 leaves open what a width does to the first convolution; here it is scaled,
because only then do the MACs come out as published.
"""

import torch
from torch import Tensor, nn
from torchvision.models import ShuffleNetV2 as TorchvisionShuffleNetV2
from torchvision.models.shufflenetv2 import InvertedResidual, channel_shuffle
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count, Width
from students import student
from students._blocks import Network, head, require, stem

UNITS = (4, 8, 4)
STAGES = ("stage2", "stage3", "stage4")

V1_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Of stage 2, by groups; each later stage has twice as many."""

V1_STEMS = {0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}
"""Channels of the first convolution, by width, as in megvii-model/ShuffleNet-Series."""

V2_CHANNELS = {
    0.5: [24, 48, 96, 192, 1024],
    1.0: [24, 116, 232, 464, 1024],
    1.5: [24, 176, 352, 704, 1024],
    2.0: [24, 244, 488, 976, 2048],
}
"""Of the first convolution, the three stages and the last convolution, by width."""


@student("shufflenet_v1")
def shufflenet_v1(
    *, num_classes: Count = 1000, groups: Count = 3, width: Width = 1.0, small_images: bool = False, channels: Count = 3
) -> nn.Module:
    """Bottlenecks with grouped 1x1 convolutions; a channel shuffle lets the groups see each other.

    Args:
        num_classes: size of the output.
        groups: of the 1x1 convolutions; more groups come with more channels, at about the same MACs.
        width: 0.5, 1, 1.5 or 2 times the channels. The first convolution and the bottlenecks (a quarter of a unit's
            outputs) are rounded up to a multiple of ``groups``.
        small_images: the first convolution has stride 1 and no pooling follows it.
        channels: of the input.

    Raises:
        ValueError: groups or a width without published numbers of channels.
    """
    require("groups", groups, V1_CHANNELS)
    require("width", width, V1_STEMS)
    inputs, outputs = _round_up(V1_STEMS[width], groups), round(width * V1_CHANNELS[groups])
    layers = {
        "stem": Conv2dNormActivation(channels, inputs, stride=1 if small_images else 2, inplace=False),
        "maxpool": nn.Identity() if small_images else nn.MaxPool2d(3, stride=2, padding=1),
        **v1_stages(inputs, outputs, groups),
        **head(4 * outputs, num_classes),
    }
    return Network(layers, STAGES)


def v1_stages(inputs: int, outputs: int, groups: int, *, kd_form: bool = False) -> dict[str, nn.Module]:
    """The three stages, from ``inputs`` channels of the stem to ``outputs``, twice and four times ``outputs``."""
    stages: dict[str, nn.Module] = {}
    for i, (name, units) in enumerate(zip(STAGES, UNITS, strict=True)):
        # The stem has too few channels to be grouped.
        first = Unit(inputs, outputs, groups, stride=2, groups_in=groups if i else 1, kd_form=kd_form)
        rest = [Unit(outputs, outputs, groups, stride=1, groups_in=groups, kd_form=kd_form) for _ in range(units - 1)]
        stages[name] = nn.Sequential(first, *rest)
        inputs, outputs = outputs, 2 * outputs
    return stages


class Unit(nn.Module):
    """A bottleneck: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1. With stride 2 its pooled input is joined on.

    In the ``kd_form``, that of distillation papers, a ReLU follows the depthwise convolution, and the bottleneck is a
    quarter of the channels that the convolutions add, not of all outputs of the unit.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: int, *, stride: int, groups_in: int, kd_form: bool = False
    ) -> None:
        super().__init__()
        added = outputs - inputs if stride == 2 else outputs
        middle = _round_up((added if kd_form else outputs) // 4, groups)
        depthwise_relu = nn.ReLU if kd_form else None
        self.branch = nn.Sequential(
            Conv2dNormActivation(inputs, middle, 1, groups=groups_in, inplace=False),
            ChannelShuffle(groups_in),  # after a dense convolution there is nothing to mix
            Conv2dNormActivation(
                middle, middle, 3, stride, groups=middle, activation_layer=depthwise_relu, inplace=False
            ),
            Conv2dNormActivation(middle, added, 1, groups=groups, activation_layer=None, inplace=False),
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.preactivation = nn.Identity()  # a name to tap, for losses that look before the ReLU
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(x)
        joined = branch + x if self.pool is None else torch.cat([branch, self.pool(x)], dim=1)
        return self.relu(self.preactivation(joined))


def _round_up(channels: int, groups: int) -> int:
    return -(-channels // groups) * groups


@student("shufflenet_v2")
def shufflenet_v2(
    *, num_classes: Count = 1000, width: Width = 1.0, small_images: bool = False, channels: Count = 3
) -> nn.Module:
    """Units that compute on one half of the channels and pass the other half on.

    Args:
        num_classes: size of the output.
        width: 0.5, 1, 1.5 or 2 times the channels.
        small_images: the first convolution has stride 1 and no pooling follows it.
        channels: of the input.

    Raises:
        ValueError: a width without published numbers of channels.
    """
    require("width", width, V2_CHANNELS)
    network = ShuffleNetV2(list(UNITS), V2_CHANNELS[width], num_classes)
    network.conv1[0] = stem(network.conv1[0], channels=channels, small_images=small_images)
    if small_images:
        network.maxpool = nn.Identity()
    return network


class ShuffleNetV2(TorchvisionShuffleNetV2):
    """torchvision's network, with its stages named and shuffles that keep the memory layout."""

    stages = STAGES

    def __init__(self, units: list[int], channels: list[int], num_classes: int) -> None:
        super().__init__(units, channels, num_classes, inverted_residual=HalfUnit)


class HalfUnit(InvertedResidual):
    """Computes on one half of the channels; with stride 2, on all of them in both of its branches."""

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1) if self.stride == 1 else (self.branch1(x), x)
        return shuffled(torch.cat([kept, self.branch2(changed)], dim=1), groups=2)


class ChannelShuffle(nn.Module):
    """`shuffled`, as a layer."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return shuffled(x, self.groups)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """The first channel of each group, then the second of each, and so on.

    In channels-last layout if ``x`` is: torch's own shuffle leaves that layout, and every layer after it then copies.
    """
    if not x.is_contiguous(memory_format=torch.channels_last):
        return channel_shuffle(x, groups)
    pixels = x.permute(0, 2, 3, 1).unflatten(3, (groups, -1))
    return pixels.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)
