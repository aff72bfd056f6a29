"""Networks for single characters: convolutions, and two linear layers that hold most of the parameters.

Xiao et al.: Building Fast and Compact Convolutional Neural Networks for Offline Handwritten Chinese Character
Recognition. arXiv:1702.07975, section 3.
"""

from collections.abc import Callable
from itertools import pairwise

from torch import nn

from distill.registry.ranges import Count, Width
from students import student
from students._blocks import Network, initialised

Activate = Callable[[], nn.Module]


@student("hccr_cnn9")
def hccr_cnn9(
    *, num_classes: Count = 3755, channels: Count = 1, width: Width = 1.0, input_size: Count = 96
) -> nn.Module:
    """Seven convolutions in five stages with overlapping pooling, and two linear layers; PReLU.

    Xiao, Jin, Yang et al.: Building Fast and Compact Convolutional Neural Networks for Offline Handwritten Chinese
    Character Recognition. arXiv:1702.07975.

    Args:
        num_classes: outputs.
        channels: of the images.
        width: multiplies the channels of all layers but the last.
        input_size: height and width of the images, as the first linear layer needs to know.
    """
    widths = [[96], [128], [160], [256, 256], [384, 384]]
    stages = [[_scaled(each, width) for each in stage] for stage in widths]
    layers: dict[str, nn.Module] = {}
    side, inputs = input_size, channels
    for number, outputs in enumerate(stages, start=1):
        blocks = [_convolution(a, b, nn.PReLU, bias=True) for a, b in pairwise([inputs, *outputs])]
        layers[f"stage{number}"] = nn.Sequential(*blocks, nn.MaxPool2d(3, 2, 1))
        inputs, side = outputs[-1], (side + 1) // 2
    layers |= _classifier(inputs * side**2, _scaled(1024, width), num_classes, nn.PReLU, bias=True)
    return initialised(Network(layers, ("stage2", "stage3", "stage4", "stage5")))


@student("character_cnn")
def character_cnn(
    *, num_classes: Count = 3755, channels: Count = 1, width: Width = 1.0, input_size: Count = 32
) -> nn.Module:
    """Four convolutions with pooling, and two linear layers; ReLU. For small images.

    Args:
        num_classes: outputs.
        channels: of the images.
        width: multiplies the channels of all layers but the last.
        input_size: height and width of the images, of at least 16 pixels.

    Raises:
        ValueError: the images are smaller.
    """
    if input_size < 16:
        raise ValueError(f"input_size={input_size}: four poolings leave nothing of fewer than 16 pixels")
    widths = [channels, *(_scaled(each, width) for each in (32, 64, 128, 256))]
    layers: dict[str, nn.Module] = {
        f"stage{number}": nn.Sequential(_convolution(a, b, nn.ReLU, bias=False), nn.MaxPool2d(2))
        for number, (a, b) in enumerate(pairwise(widths), start=1)
    }
    layers |= _classifier(widths[-1] * (input_size // 16) ** 2, _scaled(512, width), num_classes, nn.ReLU, bias=False)
    return initialised(Network(layers, ("stage1", "stage2", "stage3", "stage4")))


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _convolution(inputs: int, outputs: int, activation: Activate, *, bias: bool) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), nn.BatchNorm2d(outputs), activation())


def _classifier(
    features: int, hidden: int, num_classes: int, activation: Activate, *, bias: bool
) -> dict[str, nn.Module]:
    """Two linear layers, batch normalisation between them."""
    return {
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(features, hidden, bias=bias),
        "bn1": nn.BatchNorm1d(hidden),
        "act1": activation(),
        "fc2": nn.Linear(hidden, num_classes),
    }
