"""A light PWC-Net: pyramid, warping, cost volume. Sun et al., PWC-Net, arXiv:1709.02371, sections 3.1 to 3.4.

Unlike there, convolutions are depthwise separable (Howard et al., arXiv:1704.04861, section 3.1) and followed by batch
normalisation, features have unit length where they are correlated, one width does for all layers of an estimator, and
there is no context network.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count, Width
from students import student
from students._flow import COARSE, LEVEL_WEIGHTS, Correlation, FlowHead, Map, Siamese, Vectors, level_weights, upsampled
from students._flow import separable as block

WIDTHS = (12, 16, 24, 32, 48)
"""Of the pyramid, at 1/2 to 1/32 of the images' size."""
ESTIMATOR = 32
"""Of the layers that estimate flow."""


class PWCNet(nn.Module):
    """Flow at 1/32 of the images' size, corrected at every finer level by what still differs after warping.

    Args:
        channels: of both images together.
        width: multiplies all numbers of channels.
        displacement: the largest one that is correlated at each level, in cells.
        weights: of the losses of the coarse heads.
    """

    stages = ("pyramid2", "pyramid3", "pyramid4", "pyramid5")

    def __init__(self, channels: int, width: float, displacement: int, weights: list[float]) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"two images have {channels} channels together, but that is an odd number")
        widths = [channels // 2, *(max(1, round(width * size)) for size in WIDTHS)]
        inner = max(1, round(width * ESTIMATOR))
        for level, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            first = Conv2dNormActivation(inputs, outputs, 3, 2, inplace=False) if level == 1 else None
            self.add_module(f"pyramid{level}", Siamese(first or nn.Sequential(block(inputs, outputs, 2))))
        self.correlation = Correlation(displacement)
        for level in (5, 4, 3, 2):
            inputs = self.correlation.channels + widths[level] + (0 if level == 5 else inner + 2)
            mix = Conv2dNormActivation(inputs, inner, 1, inplace=False)
            self.add_module(f"estimate{level}", nn.Sequential(mix, block(inner, inner, 1), block(inner, inner, 1)))
            self.add_module(f"flow{level}", FlowHead(inner))
        self.auxiliary = level_weights(COARSE, weights)

    def forward(self, images: Map) -> Vectors:
        pairs = [self.get_submodule("pyramid1")(images)]
        for level in (2, 3, 4, 5):
            pairs.append(self.get_submodule(f"pyramid{level}")(pairs[-1]))
        flow: Tensor | None = None
        read: list[Tensor] = []
        for level in (5, 4, 3, 2):
            first, second = pairs.pop().chunk(2, dim=1)
            cell = 2.0**level
            if flow is not None:
                flow = upsampled(flow, first)
                second = warped(second, flow / cell)
                read = [upsampled(read[0], first), flow / cell]
            costs = self.correlation(torch.cat([first, second], dim=1))
            features = self.get_submodule(f"estimate{level}")(torch.cat([costs, first, *read], dim=1))
            flow = self.get_submodule(f"flow{level}")(features, flow)
            read = [features]
        assert flow is not None
        return flow


def warped(features: Map, flow: Vectors) -> Map:
    """Features looked up where the flow, in cells of the map, leads; 0 outside."""
    height, width = features.shape[2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + 0.5
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + 0.5
    at = torch.stack([(flow[:, 0] + x) * (2 / width) - 1, (flow[:, 1] + y) * (2 / height) - 1], dim=-1)
    return F.grid_sample(features, at, mode="bilinear", padding_mode="zeros", align_corners=False)


@student("pwc_light")
def pwc_light(
    *,
    channels: Count = 6,
    width: Width = 1.0,
    displacement: Count = 3,
    level_weights: list[float] = list(LEVEL_WEIGHTS),  # noqa: B006
) -> nn.Module:
    """A light PWC-Net with a narrow depthwise pyramid.

    Args:
        channels: of both images together.
        width: multiplies all numbers of channels.
        displacement: the largest one that is correlated at each level, in cells.
        level_weights: of the losses of flow at 1/32, 1/16 and 1/8, beside the 1 of the finest.

    Raises:
        ValueError: an odd number of channels, or weights of other levels.
    """
    return PWCNet(channels, width, displacement, level_weights)
