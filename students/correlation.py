"""Small networks of FlowNetC's form for optical flow: Dosovitskiy et al., FlowNet, arXiv:1504.06852, section 3.

Unlike there, features are correlated at a quarter of the images' size and have unit length, layers have batch
normalisation, and maps are upsampled bilinearly: the form that learns within a few hundred steps. The light one has
depthwise-separable convolutions, as MobileNet's (Howard et al., arXiv:1704.04861, section 3.1).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count, Width
from students import student
from students._flow import (
    COARSE,
    LEVEL_WEIGHTS,
    Correlation,
    FlowHead,
    Map,
    Siamese,
    Vectors,
    level_weights,
    separable,
    upsampled,
)


class CorrelationNet(nn.Module):
    """An encoder of both images, their correlation, a pyramid, and a decoder with flow at four resolutions.

    Args:
        channels: of both images together.
        widths: of features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the images' size.
        displacement: the largest one that is correlated, in cells at 1/4.
        light: whether convolutions are depthwise separable.
        weights: of the losses of the coarse heads.
    """

    stages = ("encoder", "merge", "down3", "down4", "down5")

    def __init__(
        self, channels: int, widths: Sequence[int], displacement: int, light: bool, weights: Sequence[float]
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"two images have {channels} channels together, but that is an odd number")
        if len(widths) != 5:
            raise ValueError(f"widths is {list(widths)}, but are five, from 1/2 to 1/32 of the images' size")
        block = separable if light else _conv
        half, quarter, *deeper = widths
        first = Conv2dNormActivation(channels // 2, half, 3 if light else 5, stride=2, inplace=False)
        self.encoder = Siamese(nn.Sequential(first, block(half, quarter, 2), block(quarter, quarter, 1, last=None)))
        self.correlation = Correlation(displacement)
        self.redirect = Conv2dNormActivation(quarter, quarter // 2, 1, inplace=False)
        self.merge = Conv2dNormActivation(self.correlation.channels + quarter // 2, quarter, 1, inplace=False)
        inputs = quarter
        for level, width in enumerate(deeper, start=3):
            self.add_module(f"down{level}", nn.Sequential(block(inputs, width, 2), block(width, width, 1)))
            inputs = width
        self.flow5 = FlowHead(inputs)
        for level, width in zip((4, 3, 2), (deeper[1], deeper[0], quarter), strict=True):
            self.add_module(f"up{level}", block(inputs + 2 + width, width, 1))
            self.add_module(f"flow{level}", FlowHead(width))
            inputs = width
        self.auxiliary = level_weights(COARSE, weights)

    def forward(self, images: Map) -> Vectors:
        pair = self.encoder(images)
        first = pair.chunk(2, dim=1)[0]
        maps = [self.merge(torch.cat([self.correlation(pair), self.redirect(first)], dim=1))]
        for level in (3, 4, 5):
            maps.append(self.get_submodule(f"down{level}")(maps[-1]))
        features = maps.pop()
        flow: Tensor = self.flow5(features)
        for level in (4, 3, 2):
            skip = maps.pop()
            coarse = upsampled(torch.cat([features, flow], dim=1), skip)
            features = self.get_submodule(f"up{level}")(torch.cat([coarse, skip], dim=1))
            flow = self.get_submodule(f"flow{level}")(features)
        return flow


def _conv(inputs: int, outputs: int, stride: int, *, last: Callable[..., nn.Module] | None = nn.ReLU) -> nn.Module:
    inplace = None if last is None else False
    return Conv2dNormActivation(inputs, outputs, 3, stride, activation_layer=last, inplace=inplace)


def _network(widths: Sequence[int], light: bool, what: str) -> Callable[..., nn.Module]:
    def build(
        *,
        channels: Count = 6,
        width: Width = 1.0,
        displacement: Count = 4,
        level_weights: list[float] = list(LEVEL_WEIGHTS),  # noqa: B006  a default of a recipe, never changed
    ) -> nn.Module:
        scaled = [max(2, round(width * size)) for size in widths]
        return CorrelationNet(channels, scaled, displacement, light, level_weights)

    build.__doc__ = f"""{what}

    Args:
        channels: of both images together.
        width: multiplies all numbers of channels.
        displacement: the largest one that is correlated, in cells of 4 pixels.
        level_weights: of the losses of flow at 1/32, 1/16 and 1/8, beside the 1 of the finest.

    Raises:
        ValueError: an odd number of channels, or weights of other levels.
    """
    return build


flow_correlation = student("flow_correlation")(
    _network((16, 32, 64, 96, 128), False, "A network that teaches: full convolutions.")
)
flow_correlation_light = student("flow_correlation_light")(
    _network((16, 24, 32, 48, 64), True, "A light network: depthwise-separable convolutions and fewer channels.")
)
