"""Iandola et al.: SqueezeNet. arXiv:1602.07360. torchvision's, so its weights load.

With ``small_images`` the poolings stay: only the first convolution changes.
"""

from torch import nn
from torchvision.models import SqueezeNet as TorchvisionSqueezeNet

from distill.registry.ranges import Count
from students import student
from students._blocks import stem


class SqueezeNet(TorchvisionSqueezeNet):
    """torchvision's network; small images get a 3x3 first convolution with stride 1."""

    def __init__(
        self, version: str, stages: tuple[str, ...], num_classes: int, small_images: bool, channels: int
    ) -> None:
        super().__init__(version, num_classes)
        self.stages = stages
        # By fan-in, unlike elsewhere: nothing here is normalised, so activations must keep their size.
        initialise = nn.init.kaiming_uniform_
        first = self.features[0]
        self.features[0] = stem(first, channels=channels, small_images=small_images, initialise=initialise)


@student("squeezenet1_0")
def squeezenet1_0(*, num_classes: Count = 1000, small_images: bool = False, channels: Count = 3) -> nn.Module:
    """AlexNet's accuracy with a fiftieth of its parameters."""
    stages = ("features.5", "features.10", "features.12")
    return SqueezeNet("1_0", stages, num_classes, small_images, channels)


@student("squeezenet1_1")
def squeezenet1_1(*, num_classes: Count = 1000, small_images: bool = False, channels: Count = 3) -> nn.Module:
    """Version 1.0's accuracy with 2.4 times fewer MACs: it pools earlier."""
    stages = ("features.4", "features.7", "features.12")
    return SqueezeNet("1_1", stages, num_classes, small_images, channels)
