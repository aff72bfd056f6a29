"""Zhang et al.: Interleaved Group Convolutions for Deep Neural Networks. arXiv:1707.02725; and
Xie et al.: IGCV2: Interleaved Structured Sparse Convolutional Neural Networks. arXiv:1804.06202.

A dense kernel as a product of grouped ones, each of whose groups reads from many groups of the one before.
"""

from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count
from students import student
from students._blocks import Network, head, initialised, require, residual_stages
from students.shufflenet import ChannelShuffle, shuffled


class InterleavedGroupConv(nn.Module):
    """A grouped 3x3 convolution, then a grouped 1x1 one whose groups have one channel of each 3x3 group.

    No ReLU is between the two, so together they are one convolution, with a dense kernel: every output channel sees
    all input channels.

    Args:
        inputs: channels in, a multiple of ``primary``.
        outputs: channels out, a multiple of ``primary``.
        stride: of the 3x3 convolution.
        primary: L, the groups of the 3x3 convolution. The 1x1 convolution has M = outputs / L.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, primary: int) -> None:
        super().__init__()
        self.primary = nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=primary, bias=False)
        self.secondary = nn.Conv2d(outputs, outputs, 1, groups=outputs // primary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        interleaved = shuffled(self.primary(x), self.primary.groups)
        return shuffled(self.secondary(interleaved), self.secondary.groups)


def plain(inputs: int, outputs: int, stride: int, *, primary: int) -> nn.Sequential:
    """One interleaved group convolution, normalised; its settings are those of `InterleavedGroupConv`."""
    convolution = InterleavedGroupConv(inputs, outputs, stride, primary=primary)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two of them around a shortcut, which is a grouped 1x1 convolution where the number of channels changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, primary: int) -> None:
        super().__init__()
        self.first = plain(inputs, outputs, stride, primary=primary)
        self.second = plain(outputs, outputs, 1, primary=primary)[:2]  # its ReLU comes after the sum
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = Conv2dNormActivation(
                inputs, outputs, 1, stride, groups=primary, activation_layer=None, inplace=None
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


@student("igcnet")
def igcnet(
    *,
    num_classes: Count = 10,
    primary: Count = 24,
    secondary: Count = 2,
    depth: Count = 20,
    residual: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """Three stages of interleaved group convolutions for images of about 32x32: IGC-L24M2 with 20 layers.

    Args:
        num_classes: size of the output.
        primary: L, the groups of the 3x3 convolutions in all stages.
        secondary: M, the groups of the 1x1 convolutions in the first stage; each stage has twice as many, and channels.
        depth: 2 and three stages of so many convolutions each: 20, 38, 62 and 98 in the paper.
        residual: shortcuts around every two convolutions.
        channels: of the input.

    Raises:
        ValueError: no groups, or a depth without three equal stages.
    """
    _check_groups(primary, secondary)
    convolutions = _per_stage(depth, step=2 if residual else 1)
    width = primary * secondary
    stages = residual_stages(
        partial(Residual if residual else plain, primary=primary),
        blocks=convolutions // 2 if residual else convolutions,
        widths=(width, width, 2 * width, 4 * width),
    )
    return _network(_stem(channels, width, small_images=True), stages, 4 * width, num_classes)


@student("igcnet18")
def igcnet18(
    *,
    num_classes: Count = 1000,
    primary: Count = 4,
    secondary: Count = 32,
    doubles: Literal["primary", "secondary"] = "secondary",
    small_images: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """ResNet-18 of interleaved group convolutions: IGC-L4M32; with 16 and 16 groups, IGC-L16M16.

    IGC-L100M2 is ``primary=100, secondary=2, doubles="primary"``.

    Args:
        num_classes: size of the output.
        primary: L, the groups of the 3x3 convolutions in the first stage.
        secondary: M, the groups of the 1x1 convolutions in the first stage.
        doubles: which of the two doubles, and channels with it, from stage to stage. If it is ``primary``, the first
            convolution has half of the first stage's channels.
        small_images: the first convolution is 3x3 with stride 1 and no pooling follows it.
        channels: of the input.

    Raises:
        ValueError: no groups, ``doubles`` is neither, or groups that cannot double.
    """
    _check_groups(primary, secondary)
    require("doubles", doubles, ("primary", "secondary"))
    if doubles == "primary" and secondary % 2:
        raise ValueError(f"secondary is {secondary}, but must be even where the first stage doubles the channels")
    width = primary * secondary
    first = width if doubles == "secondary" else width // 2

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        groups = primary if doubles == "secondary" else outputs // secondary
        return Residual(inputs, outputs, stride, primary=groups)

    stages = residual_stages(block, blocks=2, widths=(first, width, 2 * width, 4 * width, 8 * width))
    return _network(_stem(channels, first, small_images=small_images), stages, 8 * width, num_classes)


@student("igcv2")
def igcv2(
    *,
    num_classes: Count = 10,
    width: Count = 144,
    partition: Count = 8,
    factors: Count = 2,
    depth: Count = 20,
    channels: Count = 3,
) -> nn.Module:
    """Three stages of structured sparse convolutions for images of about 32x32; IGCV2-C416 has ``width=416``.

    Two factors of 8 connect all of 64 channels, each input to each output once, as the paper's strict form demands. At
    more channels, as in its loosened form, some are not connected within one block.

    Args:
        num_classes: size of the output.
        width: C, the channels of the first stage; each stage has twice as many.
        partition: K, the channels in each group of the 1x1 convolutions.
        factors: 1x1 convolutions in a block.
        depth: 2 and three stages of so many blocks each.
        channels: of the input.

    Raises:
        ValueError: a width that is no multiple of ``partition``, no factors, or a depth without three equal stages.
    """
    if partition < 1 or width < partition or width % partition:
        raise ValueError(f"width is {width}, but must be a multiple of partition, which is {partition}")
    if factors < 1:
        raise ValueError(f"factors is {factors}, but must be at least 1")
    block = partial(structured_sparse, partition=partition, factors=factors)
    stages = residual_stages(block, blocks=_per_stage(depth), widths=(width, width, 2 * width, 4 * width))
    return _network(_stem(channels, width, small_images=True), stages, 4 * width, num_classes)


def structured_sparse(inputs: int, outputs: int, stride: int, *, partition: int, factors: int) -> nn.Sequential:
    """IGCV2: a channelwise 3x3 convolution, and grouped 1x1 ones with a shuffle after each.

    Args:
        inputs: channels in.
        outputs: channels out, a multiple of ``inputs`` and of ``partition``.
        stride: of the channelwise convolution.
        partition: channels in each group of the 1x1 convolutions.
        factors: how many of these there are.
    """
    groups = outputs // partition
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=inputs, bias=False)]
    for _ in range(factors):
        # Of a channel's number in digits of base `partition`, a convolution mixes the last; the shuffle rotates them.
        layers += [nn.Conv2d(outputs, outputs, 1, groups=groups, bias=False), ChannelShuffle(groups)]
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs), nn.ReLU())


def _stem(channels: int, width: int, *, small_images: bool) -> dict[str, nn.Module]:
    kernel, stride = (3, 1) if small_images else (7, 2)
    first = Conv2dNormActivation(channels, width, kernel, stride, inplace=False)
    return {"stem": first, "maxpool": nn.Identity() if small_images else nn.MaxPool2d(3, stride=2, padding=1)}


def _network(stem: dict[str, nn.Module], stages: dict[str, nn.Module], features: int, num_classes: int) -> Network:
    return initialised(Network(stem | stages | head(features, num_classes), tuple(stages)))


def _check_groups(primary: int, secondary: int) -> None:
    if min(primary, secondary) < 1:
        raise ValueError(f"primary and secondary are {primary} and {secondary}, but groups are at least 1")


def _per_stage(depth: int, step: int = 1) -> int:
    """The convolutions of each of three stages, a multiple of ``step``."""
    if depth < 5 or (depth - 2) % (3 * step):
        raise ValueError(
            f"depth is {depth}, but must be 2 more than a multiple of {3 * step}, such as 20, 38, 62 or 98"
        )
    return (depth - 2) // 3
