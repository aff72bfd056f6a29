"""Simonyan & Zisserman: Very Deep Convolutional Networks. arXiv:1409.1556, table 1, in the form of distillation papers.

For 32x32 images, with batch normalisation: one linear layer instead of three, and no pooling before the last block
(Tian et al.: Contrastive Representation Distillation. arXiv:1910.10699, section 4).
"""

from torch import nn
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count, Width
from students import student
from students._blocks import Network, head, initialised

WIDTHS = (64, 128, 256, 512, 512)


@student("vgg8")
def vgg8(*, num_classes: Count = 10, channels: Count = 3, width: Width = 1.0) -> nn.Module:
    """Five blocks of one convolution; ``width`` multiplies the channels of all."""
    return _vgg(1, num_classes, channels, width)


@student("vgg13")
def vgg13(*, num_classes: Count = 10, channels: Count = 3, width: Width = 1.0) -> nn.Module:
    """Five blocks of two convolutions; ``width`` multiplies the channels of all."""
    return _vgg(2, num_classes, channels, width)


def _vgg(convolutions: int, num_classes: int, channels: int, width: float) -> nn.Module:
    widths = [round(width * outputs) for outputs in WIDTHS]
    if min(widths) < 1:
        raise ValueError(f"width is {width}, but must leave a channel: be {1 / WIDTHS[0]:.3f} or more")
    layers: dict[str, nn.Module] = {}
    inputs = channels
    for i, outputs in enumerate(widths):
        rest = [_convolution(outputs, outputs) for _ in range(convolutions - 1)]
        layers[f"block{i}"] = nn.Sequential(_convolution(inputs, outputs), *rest)
        if i < 3:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        inputs = outputs
    # block0 is no stage: with it there would be one more than the networks have that VGG is paired with.
    network = Network(layers | head(widths[-1], num_classes), stages=("block1", "block2", "block3", "block4"))
    return initialised(network, classifier_std=0.01)


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return Conv2dNormActivation(inputs, outputs, bias=True, inplace=False)
