"""What detectors share: feature maps of several sizes, and a head that reads all of them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from students._blocks import initialised

BOX = 4
"""Values of a box: its centre (x, y), width and height, encoded as offsets from an anchor."""


class Detector(nn.Module):
    """Images (batch, channels, height, width) in, one tensor (batch, anchors, 1 + num_classes + 4) out.

    Of each anchor the logits of the background and of the classes, then the encoded box, or with ``bins`` that many
    logits for each of its 4 values. Anchors go map by map, early to late, row by row, and in each cell as the task has
    them.

    Args:
        body: from images to a list of maps, early to late.
        head: from that list to the output.
        maps: how many there are. ``maps.0``, ``maps.1``, ... are modules whose outputs are what the head reads: the
            places where losses and hooks find the maps, whatever the body.
    """

    def __init__(self, body: nn.Module, head: "Head", maps: int) -> None:
        super().__init__()
        self.body, self.head, self.bins = body, head, head.bins
        self.maps = nn.ModuleList(nn.Identity() for _ in range(maps))
        self.stages = tuple(f"maps.{number}" for number in range(maps))

    def forward(self, images: Tensor) -> Tensor:
        return self.head([tap(features) for tap, features in zip(self.maps, self.body(images), strict=True)])

    def reader(self) -> nn.Module:
        """From a list of maps to the output: what CrossKD has read a student's maps."""
        return self.head


class Body(nn.Module):
    """Layers one after the other, some of whose outputs are maps.

    Args:
        layers: by name.
        maps: the names of those whose outputs are maps, in the order of the layers.
    """

    def __init__(self, layers: dict[str, nn.Module], maps: Sequence[str]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.names = [(name, name in maps) for name in layers]

    def forward(self, images: Tensor) -> list[Tensor]:
        features, maps = images, []
        for name, is_map in self.names:
            features = self.get_submodule(name)(features)
            if is_map:
                maps.append(features)
        return maps


class Head(nn.Module):
    """One layer for each map, from its channels to the values of all anchors of a cell.

    Liu et al., SSD: Single Shot MultiBox Detector, arXiv:1512.02325, section 2.1; with ``separable`` the depthwise
    layer of SSDLite, Sandler et al., arXiv:1801.04381, section 6.2, is one for classes and boxes.
    """

    def __init__(
        self,
        channels: Sequence[int],
        anchors: Sequence[int],
        num_classes: int,
        bins: int,
        *,
        kernel: int,
        separable: bool,
    ) -> None:
        super().__init__()
        if len(anchors) != len(channels):
            raise ValueError(f"anchors are given for {len(anchors)} maps, but the network has {len(channels)}")
        self.bins = bins
        self.values = 1 + num_classes + BOX * max(bins, 1)
        outputs = [count * self.values for count in anchors]
        self.layers = nn.ModuleList(
            nn.Sequential(
                Conv2dNormActivation(inputs, inputs, kernel, groups=inputs, inplace=False), nn.Conv2d(inputs, size, 1)
            )
            if separable
            else nn.Conv2d(inputs, size, kernel, padding=kernel // 2)
            for inputs, size in zip(channels, outputs, strict=True)
        )
        initialised(self)

    def forward(self, maps: list[Tensor]) -> Tensor:
        outputs = [layer(features) for layer, features in zip(self.layers, maps, strict=True)]
        return torch.cat([by_anchor(output, self.values) for output in outputs], dim=1)


def extra_maps(inputs: int, extras: Sequence[int], *, separable: bool, unpadded: int = 0) -> dict[str, nn.Module]:
    """SSD's layers behind a network, by name: a 1x1 convolution and one of stride 2 each.

    Args:
        inputs: channels of what they read.
        extras: channels of what each outputs.
        separable: whether the second convolution is depthwise separable.
        unpadded: how many of the last ones have stride 1 and no padding.
    """
    make = separable_layer if separable else full_layer
    layers: dict[str, nn.Module] = {}
    for number, outputs in enumerate(extras, start=1):
        reduced = max(1, outputs // 2)
        stride, padding = (1, 0) if number > len(extras) - unpadded else (2, 1)
        smaller = make(reduced, outputs, stride, padding)
        extra = nn.Sequential(Conv2dNormActivation(inputs, reduced, 1, inplace=False), smaller)
        layers[f"extra{number}"] = initialised(extra)
        inputs = outputs
    return layers


def full_layer(inputs: int, outputs: int, stride: int, padding: int = 1) -> nn.Module:
    """A 3x3 convolution, batch normalisation and ReLU."""
    return Conv2dNormActivation(inputs, outputs, 3, stride, padding, inplace=False)


def separable_layer(inputs: int, outputs: int, stride: int, padding: int = 1) -> nn.Module:
    """A depthwise 3x3 and a 1x1 convolution, each with batch normalisation and ReLU."""
    return nn.Sequential(
        Conv2dNormActivation(inputs, inputs, 3, stride, padding, groups=inputs, inplace=False),
        Conv2dNormActivation(inputs, outputs, 1, inplace=False),
    )


def by_anchor(output: Tensor, values: int) -> Tensor:
    """(batch, anchors of a cell * values, height, width) as (batch, anchors, values), row by row."""
    return output.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values))
