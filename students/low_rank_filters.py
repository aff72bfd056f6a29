"""Ioannou et al.: Training CNNs with Low-Rank Filters for Efficient Image Classification. arXiv:1511.06744 (ICLR 2016).

A layer's square filters make room for wide and tall ones side by side, trained from scratch. First convolutions stay
whole: they see too few channels to save anything.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from distill.registry.ranges import Count, NonNegative, Width
from students import student
from students._blocks import Network, initialised, require

Filters = Mapping[tuple[int, int], int]
"""Height and width -> number of filters."""

Variant = Literal["gmp", "gmp-lr", "gmp-lr-2x", "gmp-lr-join", "gmp-lr-join-wfull", "gmp-sf"]

VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Output channels, stage by stage."""

NIN = ((5, (192, 160, 96)), (5, (192, 192, 192)), (3, (192, 192)))
"""Kernel and output channels, stage by stage; all but the first convolution of a stage are 1x1, and so is the last."""


class CompositeConv2d(nn.Module):
    """Filters of several shapes on the same input; outputs as large as the input, in the order of ``filters``.

    Weights of all shapes begin with one variance (section 4): ``gain`` over the sum of height x width x number of
    filters. With one shape this is He et al.'s, arXiv:1502.01852, equation 14.

    Args:
        inputs: channels.
        filters: how many of each shape; sizes are odd.
        gain: 2 if a ReLU follows, 1 if another convolution does.
    """

    def __init__(self, inputs: int, filters: Filters, *, gain: float = 2.0) -> None:
        super().__init__()
        variance = gain / sum(height * width * count for (height, width), count in filters.items())
        self.branches = nn.ModuleList()
        for (height, width), count in filters.items():
            branch = nn.Conv2d(inputs, count, (height, width), padding=(height // 2, width // 2))
            nn.init.normal_(branch.weight, std=math.sqrt(variance))
            if branch.bias is not None:
                nn.init.zeros_(branch.bias)
            self.branches.append(branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def low_rank(count: int, size: int) -> dict[tuple[int, int], int]:
    """Half of ``count`` filters are 1 x ``size``, half ``size`` x 1: a ``size``-th of the weights of square ones."""
    return {(1, size): count - count // 2, (size, 1): count // 2}


@student("vgg11_low_rank")
def vgg11_low_rank(
    *,
    num_classes: Count = 1000,
    variant: Variant = "gmp-lr-join",
    full: NonNegative = 0.25,
    small_images: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """VGG-11 with a global max pooling in front of its linear layers, and low-rank filters in all layers but one.

    Args:
        num_classes: size of the output.
        variant: what a 3x3 layer becomes: itself (``gmp``), 1x3 and 3x1 filters (``gmp-lr``), twice as many
            (``gmp-lr-2x``), mixed by a 1x1 convolution (``gmp-lr-join``), with some 3x3 ones among them
            (``gmp-lr-join-wfull``), or 1x3 and then 3x1 filters (``gmp-sf``).
        full: part of 3x3 filters in ``gmp-lr-join-wfull``, from 0 to 1; which one the paper has is not certain.
        small_images: no pooling after the first convolution.
        channels: of the input.

    Raises:
        ValueError: an unknown variant, or a part out of range.
    """
    require("variant", variant, get_args(Variant))
    if not 0 <= full <= 1:
        raise ValueError(f"full is {full}, but must be a part of the filters, from 0 to 1")
    layers: dict[str, nn.Module] = {}
    inputs = channels
    for number, widths in enumerate(VGG11, start=1):
        stage = nn.Sequential()
        for outputs in widths:
            convolutions = _convolutions(variant if number > 1 else "gmp", outputs, full)
            stage.extend(_layer(inputs, convolutions))
            inputs = sum(convolutions[-1].values())
        layers[f"stage{number}"] = stage
        if number < len(VGG11):  # the last pooling gives way to the global one
            layers[f"pool{number}"] = nn.Identity() if small_images and number == 1 else nn.MaxPool2d(2)
    classifier = initialised(_classifier(inputs, num_classes), classifier_std=0.01)
    layers |= {"maxpool": nn.AdaptiveMaxPool2d(1), "flatten": nn.Flatten(), "classifier": classifier}
    return Network(layers, stages=("stage2", "stage3", "stage4", "stage5"))


def _convolutions(variant: Variant, outputs: int, full: float) -> list[Filters]:
    """The convolutions that one 3x3 layer becomes; none has a ReLU but the last."""
    whole = round(full * outputs)
    among = {size: count for size, count in (low_rank(outputs - whole, 3) | {(3, 3): whole}).items() if count}
    choices: dict[Variant, list[Filters]] = {
        "gmp": [{(3, 3): outputs}],
        "gmp-lr": [low_rank(outputs, 3)],
        "gmp-lr-2x": [low_rank(2 * outputs, 3)],
        "gmp-lr-join": [low_rank(outputs, 3), {(1, 1): outputs}],
        "gmp-lr-join-wfull": [among, {(1, 1): outputs}],
        "gmp-sf": [{(1, 3): outputs}, {(3, 1): outputs}],
    }
    return choices[variant]


def _layer(inputs: int, convolutions: list[Filters]) -> nn.Sequential:
    layer = nn.Sequential()
    for filters in convolutions:
        layer.append(CompositeConv2d(inputs, filters, gain=2.0 if filters is convolutions[-1] else 1.0))
        inputs = sum(filters.values())
    return layer.append(nn.ReLU())


def _classifier(inputs: int, num_classes: int) -> nn.Sequential:
    hidden = [nn.Linear(inputs, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*hidden, nn.Linear(4096, num_classes))


@student("nin")
def nin(*, num_classes: Count = 10, width: Width = 1.0, batch_norm: bool = False, channels: Count = 3) -> nn.Module:
    """Network in Network (Lin et al., arXiv:1312.4400) for images of about 32x32: each 5x5 or 3x3 layer, two 1x1 ones.

    Args:
        num_classes: size of the output.
        width: multiplies every number of channels.
        batch_norm: normalise before every ReLU, which the paper does not.
        channels: of the input.

    Raises:
        ValueError: a width that is not above 0.
    """
    return _nin(num_classes, width, batch_norm, channels, square=True)


@student("nin_low_rank")
def nin_low_rank(
    *, num_classes: Count = 10, width: Width = 1.0, batch_norm: bool = False, channels: Count = 3
) -> nn.Module:
    """`nin` with 1x5 and 5x1, 1x3 and 3x1 filters in its second and third stage. Same settings."""
    return _nin(num_classes, width, batch_norm, channels, square=False)


def _nin(num_classes: int, width: float, batch_norm: bool, channels: int, *, square: bool) -> nn.Module:
    if not 0 < width < math.inf:
        raise ValueError(f"width is {width}, but must be a number above 0, such as 0.5 or 1")
    layers: dict[str, nn.Module] = {}
    inputs = channels
    for number, (size, widths) in enumerate(NIN, start=1):
        first, *rest = (max(2, round(width * outputs)) for outputs in widths)
        spatial = {(size, size): first} if square or number == 1 else low_rank(first, size)
        stage = nn.Sequential()
        for filters in (spatial, *({(1, 1): outputs} for outputs in rest)):
            outputs = sum(filters.values())
            norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
            stage.extend([CompositeConv2d(inputs, filters), *norm, nn.ReLU()])
            inputs = outputs
        layers[f"stage{number}"] = stage
        if number < len(NIN):
            pool = nn.MaxPool2d if number == 1 else nn.AvgPool2d
            layers |= {f"pool{number}": pool(3, stride=2, ceil_mode=True), f"dropout{number}": nn.Dropout()}
    layers |= {
        "classifier": nn.Conv2d(inputs, num_classes, 1),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }
    return Network(layers, stages=("stage1", "stage2", "stage3"))
