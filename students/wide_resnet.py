"""Zagoruyko & Komodakis: Wide Residual Networks. arXiv:1605.07146, table 1: WRN-depth-width, without dropout.

Normalisation and ReLU come before each convolution, so the outputs of the stages are pre-activations.
"""

from collections.abc import Callable

from torch import Tensor, nn

from distill.registry.ranges import Count
from students import student
from students._blocks import Network, head, initialised, residual_stages


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut; where the width changes, both start from the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.bn1(x))
        branch = self.conv2(self.relu(self.bn2(self.conv1(active))))
        return branch + (x if self.shortcut is None else self.shortcut(active))


def preactivated(
    block: Callable[[int, int, int], nn.Module], blocks: int, width: int, num_classes: int, channels: int
) -> nn.Module:
    """Three stages of ``blocks`` blocks each, made from inputs, outputs and stride, in a network for small images."""
    widths = [16, 16 * width, 32 * width, 64 * width]
    stages = residual_stages(block, blocks=blocks, widths=widths)
    layers = {
        "conv1": nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        **stages,
        "bn1": nn.BatchNorm2d(widths[-1]),
        "relu": nn.ReLU(),
        **head(widths[-1], num_classes),
    }
    return initialised(Network(layers, tuple(stages)))


def _network(*, depth: int, width: int) -> Callable[..., nn.Module]:
    def build(*, num_classes: Count = 10, channels: Count = 3) -> nn.Module:
        return preactivated(Block, (depth - 4) // 6, width, num_classes, channels)

    build.__doc__ = f"{depth} layers for images of about 32x32, {width} times as wide as a ResNet."
    return build


wrn_16_1 = student("wrn_16_1")(_network(depth=16, width=1))
wrn_16_2 = student("wrn_16_2")(_network(depth=16, width=2))
wrn_40_1 = student("wrn_40_1")(_network(depth=40, width=1))
wrn_40_2 = student("wrn_40_2")(_network(depth=40, width=2))
