"""Wang et al.: Learning Versatile Filters for Efficient Convolutional Neural Networks. NeurIPS (2018), sections 2, 3.

One stored filter, the primary, does the work of several: its nested centre crops are filters too, and so is each of
them at other places along the input's channels. The authors' code (huawei-noah/Versatile-Filters) stores ``delta``
channels more per primary, which no filter reads, and returns fewer channels than asked for where they do not divide;
here neither happens.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from distill.registry.ranges import Count, Index
from students import student
from students._blocks import M, Network, initialised, stem
from students._replace import replace_convolutions
from students.resnet import resnet50
from students.resnet_cifar import resnet20


class VersatileConv2d(nn.Module):
    """A convolution whose filters share their weights.

    Outputs come in the order of `parts`: all that are computed with whole primaries, then those with ever smaller
    crops. If their number does not divide, the last primary has fewer filters than the others.

    Args:
        inputs: channels.
        outputs: channels, any number.
        size: of a primary, height and width; crops lose a pixel on each side, so there are ``ceil(size / 2)``.
        stride: of all filters.
        padding: of the largest; smaller ones get less, so that all see the same centres.
        bias: one of its own for every output.
        delta: channels of the input that a filter leaves out.
        step: channels between two places of a filter, a divisor of ``delta``; there are ``1 + delta / step`` places.

    Raises:
        ValueError: ``delta`` or ``step`` does not fit.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        delta: Index = 0,
        step: Count = 1,
    ) -> None:
        super().__init__()
        if not 0 <= delta < inputs:
            raise ValueError(f"delta is {delta}, but must be one of 0 to {inputs - 1}: the layer has {inputs} inputs")
        if step < 1 or delta % step:
            raise ValueError(f"step is {step}, but must be a divisor of delta, which is {delta}")
        self.inputs, self.outputs, self.size = inputs, outputs, size
        self.stride, self.padding = stride, padding
        self.places = range(0, delta + 1, step)
        primaries = math.ceil(outputs / (math.ceil(size / 2) * len(self.places)))
        self.weight = nn.Parameter(torch.empty(primaries, inputs - delta, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        # He et al., arXiv:1502.01852, equation 14: how many weights of the layer read an input.
        readers = sum(count * (size - 2 * crop) ** 2 for crop, _, count in self.parts())
        nn.init.normal_(self.weight, std=math.sqrt(2 / readers))

    def parts(self) -> list[tuple[int, int, int]]:
        """How the outputs are made: pixels cropped on each side, first channel of the input, number of primaries."""
        kinds = [(crop, place) for crop in range(math.ceil(self.size / 2)) for place in self.places]
        primaries = len(self.weight)
        surplus = primaries * len(kinds) - self.outputs
        counts = [primaries] * (len(kinds) - surplus) + [primaries - 1] * surplus
        return [(*kind, count) for kind, count in zip(kinds, counts, strict=True) if count]

    def forward(self, x: Tensor) -> Tensor:
        parts = self.parts()
        biases = [None] * len(parts) if self.bias is None else self.bias.split([count for _, _, count in parts])
        return torch.cat([self._part(x, *part, bias) for part, bias in zip(parts, biases, strict=True)], dim=1)

    def _part(self, x: Tensor, crop: int, place: int, count: int, bias: Tensor | None) -> Tensor:
        end = self.size - crop
        weight = self.weight[:count, :, crop:end, crop:end]
        x = x[:, place : place + self.weight.shape[1]]
        padding = self.padding - crop
        if padding < 0:  # the smaller filters do not reach the outermost pixels
            x, padding = F.pad(x, [padding] * 4), 0
        return F.conv2d(x, weight, bias, self.stride, padding)


@student("versatile_resnet50")
def versatile_resnet50(
    *,
    num_classes: Count = 1000,
    delta: Index = 0,
    step: Count = 1,
    versatile_stem: bool = False,
    small_images: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """ResNet-50 with versatile convolutions: the paper's v1 shares in space only, its v2 has a ``delta`` too.

    Args:
        num_classes: size of the output.
        delta: channels of its input that a filter leaves out; with 1 there are half as many primaries.
        step: channels between two places of a filter, a divisor of ``delta``.
        versatile_stem: share in the first convolution too; along channels only if it has more than ``delta``.
        small_images: the first convolution is 3x3 with stride 1, and no pooling follows it.
        channels: of the input.

    Raises:
        ValueError: ``delta`` or ``step`` does not fit.
    """
    network = resnet50(num_classes=num_classes, small_images=small_images, channels=channels)
    return _versatile(network, "conv1", delta, step, keep_first=not versatile_stem)


@student("versatile_resnet20")
def versatile_resnet20(*, num_classes: Count = 10, delta: Index = 0, step: Count = 1, channels: Count = 3) -> nn.Module:
    """`resnet20`, for images of about 32x32, with versatile convolutions after the first.

    Args:
        num_classes: size of the output.
        delta: channels of its input that a filter leaves out; with 1 there are half as many primaries.
        step: channels between two places of a filter, a divisor of ``delta``.
        channels: of the input.

    Raises:
        ValueError: ``delta`` or ``step`` does not fit.
    """
    network = resnet20(num_classes=num_classes, channels=channels)
    return _versatile(network, "conv1", delta, step, keep_first=True)


@student("versatile_vgg16")
def versatile_vgg16(
    *, num_classes: Count = 1000, delta: Index = 0, step: Count = 1, small_images: bool = False, channels: Count = 3
) -> nn.Module:
    """VGG-16 with versatile convolutions, the first linear layer (7x7) among them, as in the authors' code.

    Args:
        num_classes: size of the output.
        delta: channels of its input that a filter leaves out, where it has more; with 1 there are half as many
            primaries.
        step: channels between two places of a filter, a divisor of ``delta``.
        small_images: no pooling after the second convolution.
        channels: of the input.

    Raises:
        ValueError: ``delta`` or ``step`` does not fit.
    """
    features = make_layers(cfgs["D"])
    features[0] = stem(features[0], channels=channels, small_images=False)
    if small_images:
        features[4] = nn.Identity()
    linear = initialised(
        nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, num_classes)),
        classifier_std=0.01,
    )
    layers = {
        "features": _versatile(features, "0", delta, step, keep_first=False),
        "avgpool": nn.AdaptiveAvgPool2d(7),
        "fc6": VersatileConv2d(512, 4096, 7, delta=delta, step=step),
        "relu6": nn.ReLU(),
        "dropout6": nn.Dropout(),
        "flatten": nn.Flatten(),
        "classifier": linear,
    }
    return Network(layers, stages=("features.9", "features.16", "features.23", "features.30"))


def _versatile(network: M, first: str, delta: int, step: int, *, keep_first: bool) -> M:
    """The same network with versatile convolutions; one that nothing is shared in stays as it is."""

    def build(path: str, conv: nn.Conv2d) -> nn.Module:
        slides = path != first or conv.in_channels > delta
        if (path == first and keep_first) or (conv.kernel_size == (1, 1) and delta == 0):
            return conv
        return VersatileConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            stride=conv.stride[0],
            padding=int(conv.padding[0]),
            bias=conv.bias is not None,
            delta=delta if slides else 0,
            step=step if slides else 1,
        )

    return replace_convolutions(network, build)
