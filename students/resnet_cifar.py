"""He et al.: Deep Residual Learning for Image Recognition. arXiv:1512.03385, section 4.2: 6n + 2 layers for CIFAR.

The paper's shortcuts are "A" (zero-padded, no parameters); those of distillation papers are "B" (a 1x1 convolution).
The x4 networks are wider throughout: Tian et al.: Contrastive Representation Distillation. arXiv:1910.10699, section 4.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from distill.registry.ranges import Count, Width
from students import student
from students._blocks import Network, head, initialised, require, residual_stages

Shortcut = Literal["A", "B"]


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = _downsample(inputs, outputs, stride, shortcut)
        self.preactivation = nn.Identity()  # a name to tap, for losses that look before the ReLU
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(self.preactivation(branch + self.downsample(x)))


class PadChannels(nn.Module):
    """Option A: every ``stride``-th pixel, and channels of zeros behind the ones there are."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra = extra
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def _downsample(inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if shortcut == "A":
        return PadChannels(outputs - inputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _network(depth: int, widths: tuple[int, int, int, int] = (16, 16, 32, 64)) -> Callable[..., nn.Module]:
    def build(
        *, num_classes: Count = 10, channels: Count = 3, shortcut: Shortcut = "B", width: Width = 1.0
    ) -> nn.Module:
        require("shortcut", shortcut, ("A", "B"))
        scaled = [max(1, round(width * channels)) for channels in widths]
        stages = residual_stages(partial(Block, shortcut=shortcut), blocks=(depth - 2) // 6, widths=scaled)
        layers = {
            "conv1": nn.Conv2d(channels, scaled[0], 3, padding=1, bias=False),
            "bn1": nn.BatchNorm2d(scaled[0]),
            "relu": nn.ReLU(),
            **stages,
            **head(scaled[-1], num_classes),
        }
        return initialised(Network(layers, tuple(stages)))

    build.__doc__ = f"{depth} layers for images of about 32x32, stages of {widths[1:]} channels."
    return build


resnet8 = student("resnet8")(_network(depth=8))
resnet14 = student("resnet14")(_network(depth=14))
resnet20 = student("resnet20")(_network(depth=20))
resnet32 = student("resnet32")(_network(depth=32))
resnet44 = student("resnet44")(_network(depth=44))
resnet56 = student("resnet56")(_network(depth=56))
resnet110 = student("resnet110")(_network(depth=110))
resnet8x4 = student("resnet8x4")(_network(depth=8, widths=(32, 64, 128, 256)))
resnet32x4 = student("resnet32x4")(_network(depth=32, widths=(32, 64, 128, 256)))
