"""He et al.: Deep Residual Learning for Image Recognition. arXiv:1512.03385. torchvision's, so its weights load."""

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from distill.registry.ranges import Count
from students import student
from students._blocks import stem


class ResNet(TorchvisionResNet):
    """torchvision's network; small images get a 3x3 first convolution and no pooling before the first stage."""

    stages = ("layer1", "layer2", "layer3", "layer4")
    conv1: nn.Conv2d

    def __init__(
        self, block: type[nn.Module], depths: list[int], num_classes: int, small_images: bool, channels: int
    ) -> None:
        super().__init__(block, depths, num_classes)
        self.conv1 = stem(self.conv1, channels=channels, small_images=small_images)
        if small_images:
            self.maxpool = nn.Identity()


@student("resnet18")
def resnet18(*, num_classes: Count = 1000, small_images: bool = False, channels: Count = 3) -> nn.Module:
    """Eight blocks of two 3x3 convolutions."""
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes, small_images, channels)


@student("resnet34")
def resnet34(*, num_classes: Count = 1000, small_images: bool = False, channels: Count = 3) -> nn.Module:
    """Sixteen blocks of two 3x3 convolutions."""
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes, small_images, channels)


@student("resnet50")
def resnet50(*, num_classes: Count = 1000, small_images: bool = False, channels: Count = 3) -> nn.Module:
    """Sixteen bottleneck blocks. With ``small_images`` and 100 classes: a teacher of the CIFAR-100 tables."""
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes, small_images, channels)
