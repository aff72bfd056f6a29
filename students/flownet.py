"""FlowNetS and FlowNetC: Dosovitskiy et al., FlowNet, arXiv:1504.06852, section 3 and figures 2 and 3.

Upsampling convolutions have biases in FlowNetC and none in FlowNetS: so have the networks of the published counts.
"""

import torch
from torch import Tensor, nn

from distill.registry.ranges import Count
from students import student
from students._flow import Correlation, FlowHead, Map, Siamese, Vectors, level_weights

COARSE = ("flow6", "flow5", "flow4", "flow3")
"""Heads at 1/64 to 1/8 of the images' size."""
LEVEL_WEIGHTS = (64.0, 16.0, 4.0, 2.0)
"""0.32, 0.08, 0.02, 0.01 to the 0.005 of the finest flow."""
SCALE = 20.0
"""Pixels that an output of 1 means."""


class FlowNet(nn.Module):
    """A contracting part to 1/64, and a decoder that predicts flow at every level up to a quarter of the size.

    Args:
        channels: of both images together.
        correlated: FlowNetC, which encodes both images with the same layers and correlates them at 1/8; else FlowNetS.
        weights: of the losses of the coarse heads.
    """

    stages = ("conv3", "conv4", "conv5", "conv6")

    def __init__(self, channels: int, correlated: bool, weights: list[float]) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"two images have {channels} channels together, but that is an odd number")
        inputs = channels // 2 if correlated else channels
        early = [_conv(inputs, 64, 7, 2), _conv(64, 128, 5, 2)]
        late = [_conv(128, 256, 5, 2)]
        self.correlated = correlated
        self.conv2 = Siamese(nn.Sequential(*early)) if correlated else nn.Sequential(*early)
        if correlated:
            self.features = Siamese(nn.Sequential(*late))
            self.correlation = Correlation(20, stride=2)
            self.activation = nn.LeakyReLU(0.1)
            self.redirect = _conv(256, 32, 1, 1)
            self.conv3 = _conv(self.correlation.channels + 32, 256, 3, 1)
        else:
            self.conv3 = nn.Sequential(*late, _conv(256, 256, 3, 1))
        self.conv4 = nn.Sequential(_conv(256, 512, 3, 2), _conv(512, 512, 3, 1))
        self.conv5 = nn.Sequential(_conv(512, 512, 3, 2), _conv(512, 512, 3, 1))
        self.conv6 = nn.Sequential(_conv(512, 1024, 3, 2), _conv(1024, 1024, 3, 1))
        self.flow6 = FlowHead(1024, SCALE)
        width = 1024
        for level, skip, outputs in ((5, 512, 512), (4, 512, 256), (3, 256, 128), (2, 128, 64)):
            self.add_module(f"deconv{level}", nn.Sequential(_double(width, outputs, correlated), nn.LeakyReLU(0.1)))
            self.add_module(f"enlarge{level}", _double(2, 2, correlated))
            width = skip + outputs + 2
            self.add_module(f"flow{level}", FlowHead(width, SCALE))
        self.auxiliary = level_weights(COARSE, weights)

    def forward(self, images: Map) -> Vectors:
        maps = [self.conv2(images)]
        if self.correlated:
            pair = self.features(maps[0])
            first, maps = pair.chunk(2, dim=1)[0], [maps[0].chunk(2, dim=1)[0]]
            matches = self.activation(self.correlation(pair))
            maps.append(self.conv3(torch.cat([self.redirect(first), matches], dim=1)))
        else:
            maps.append(self.conv3(maps[0]))
        for level in (4, 5, 6):
            maps.append(self.get_submodule(f"conv{level}")(maps[-1]))
        features = maps.pop()
        flow: Tensor = self.flow6(features)
        for level in (5, 4, 3, 2):
            skip = maps.pop()
            height, width = skip.shape[2:]
            finer = [
                self.get_submodule(f"deconv{level}")(features),
                self.get_submodule(f"enlarge{level}")(flow / SCALE),
            ]
            features = torch.cat([skip, *(one[..., :height, :width] for one in finer)], dim=1)
            flow = self.get_submodule(f"flow{level}")(features)
        return flow


@student("flownet_s")
def flownet_s(*, channels: Count = 6, level_weights: list[float] = list(LEVEL_WEIGHTS)) -> nn.Module:  # noqa: B006
    """FlowNetS: both images, stacked, through one network.

    Args:
        channels: of both images together.
        level_weights: of the losses of flow at 1/64, 1/32, 1/16 and 1/8, beside the 1 of the finest.

    Raises:
        ValueError: an odd number of channels, or weights of other levels.
    """
    return FlowNet(channels, False, level_weights)


@student("flownet_c")
def flownet_c(*, channels: Count = 6, level_weights: list[float] = list(LEVEL_WEIGHTS)) -> nn.Module:  # noqa: B006
    """FlowNetC: features of the two images, correlated.

    Args:
        channels: of both images together.
        level_weights: of the losses of flow at 1/64, 1/32, 1/16 and 1/8, beside the 1 of the finest.

    Raises:
        ValueError: an odd number of channels, or weights of other levels.
    """
    return FlowNet(channels, True, level_weights)


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.LeakyReLU(0.1))


def _double(inputs: int, outputs: int, bias: bool) -> nn.Module:
    """Twice the height and width."""
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=bias)
