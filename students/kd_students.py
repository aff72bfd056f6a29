"""The students behind the CIFAR-100 tables of distillation papers; results on other networks do not compare.

In name they are ShuffleNets and a MobileNet, in fact variants for 32x32 images (Tian et al.: Contrastive Representation
Distillation. arXiv:1910.10699, table 2; HobbitLong/RepDistiller, models/).
"""

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count
from students import student
from students._blocks import Network, head, initialised
from students.mobilenet import V2_STAGES
from students.shufflenet import STAGES, UNITS, V2_CHANNELS, ShuffleNetV2, v1_stages


@student("kd_shufflenet_v1")
def kd_shufflenet_v1(*, num_classes: Count = 100, channels: Count = 3) -> nn.Module:
    """ShuffleNet V1 of 3 groups: 1x1 first convolution, narrower first units, one more ReLU in every unit."""
    layers = {
        "stem": Conv2dNormActivation(channels, 24, 1, inplace=False),
        **v1_stages(24, 240, groups=3, kd_form=True),
        **head(960, num_classes),
    }
    return Network(layers, STAGES)


@student("kd_shufflenet_v2")
def kd_shufflenet_v2(*, num_classes: Count = 100, channels: Count = 3) -> nn.Module:
    """ShuffleNet V2 of width 1: 1x1 first convolution, no pooling behind it."""
    network = ShuffleNetV2(list(UNITS), V2_CHANNELS[1.0], num_classes)
    network.conv1[0] = nn.Conv2d(channels, 24, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


@student("kd_mobilenet_v2")
def kd_mobilenet_v2(*, num_classes: Count = 100, channels: Count = 3) -> nn.Module:
    """MobileNetV2 of half width: second stage with stride 1, expansion in every block, ReLU, no dropout."""
    strides = (1, 1, 2, 2, 1, 2, 1)
    inputs = 16
    layers: dict[str, nn.Module] = {"stem": Conv2dNormActivation(channels, inputs, stride=2, inplace=False)}
    for i, ((expansion, outputs, blocks), stride) in enumerate(zip(V2_STAGES, strides, strict=True), start=1):
        outputs //= 2
        first = InvertedResidual(inputs, outputs, stride, expansion)
        rest = [InvertedResidual(outputs, outputs, 1, expansion) for _ in range(blocks - 1)]
        layers[f"stage{i}"] = nn.Sequential(first, *rest)
        inputs = outputs
    layers["conv"] = Conv2dNormActivation(inputs, 1280, 1, inplace=False)
    network = Network(layers | head(1280, num_classes), stages=("stage2", "stage3", "stage5", "stage7"))
    return initialised(network, classifier_std=0.01)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project linearly; around it an identity where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.branch = nn.Sequential(
            Conv2dNormActivation(inputs, hidden, 1, inplace=False),
            Conv2dNormActivation(hidden, hidden, 3, stride, groups=hidden, inplace=False),
            Conv2dNormActivation(hidden, outputs, 1, activation_layer=None, inplace=False),
        )
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.skips else self.branch(x)
