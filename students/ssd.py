"""Liu et al.: SSD: Single Shot MultiBox Detector. arXiv:1512.02325, on light networks.

On MobileNetV1 as Howard et al., arXiv:1704.04861, section 4.6, and on MobileNetV2 as Sandler et al., arXiv:1801.04381,
section 6.2. ``num_classes`` does not count the background.
"""

from typing import Any, cast

from torch import nn
from torchvision.ops import Conv2dNormActivation

from distill.registry.ranges import Count, Index, Width
from students import student
from students._blocks import Network, initialised
from students._detector import Body, Detector, Head, extra_maps, full_layer, separable_layer
from students.mobilenet import mobilenet_v1, mobilenet_v2

V1_MAPS = ("stage4", "stage5")
EXTRAS = (512, 256, 256, 128)
"""Channels of the maps behind those of the network, each of half the size of the one before."""
ANCHORS = (3, 6, 6, 6, 6, 6)


@student("ssd_mobilenet_v1")
def ssd_mobilenet_v1(
    *,
    num_classes: Count = 80,
    anchors: tuple[Count, ...] = ANCHORS,
    width: Width = 1.0,
    maps: tuple[str, ...] = V1_MAPS,
    extras: tuple[Count, ...] = EXTRAS,
    unpadded: Index = 0,
    separable: bool = False,
    bins: Index = 0,
    channels: Count = 3,
) -> nn.Module:
    """SSD300 on MobileNetV1: maps of strides 16 to 512, 1x1 convolutions as the head.

    Args:
        num_classes: of objects.
        anchors: in a cell of each map.
        width: multiplies the channels of the MobileNet, not of ``extras``.
        maps: stages of the MobileNet whose outputs are maps, of "stage3" (stride 8), "stage4" and "stage5"; stages
            behind the last of them are left out.
        extras: channels of the maps behind them.
        unpadded: so many of them, the last ones, have stride 1 and no padding, as in SSD300 on VGG-16 the last two:
            from 5 to 3 to 1 cell a side.
        separable: depthwise-separable ``extras`` and head (SSDLite).
        bins: of the distribution of each of a box's values; 0: the values themselves.
        channels: of the input.

    Raises:
        ValueError: anchors for another number of maps, or no such stage.
    """
    network = cast(Network, mobilenet_v1(width=width, channels=channels))
    layers = {name: layer for name, layer in network.named_children() if name == "stem" or name.startswith("stage")}
    names = list(layers)
    if maps and set(maps) <= set(names):
        names = names[: max(map(names.index, maps)) + 1]
    layers = {name: layers[name] for name in names}
    return _ssd(layers, maps, anchors, (num_classes, bins), extras, kernel=1, separable=separable, unpadded=unpadded)


@student("ssd_mobilenet_v2")
def ssd_mobilenet_v2(
    *,
    num_classes: Count = 80,
    anchors: tuple[Count, ...] = ANCHORS,
    width: Width = 1.0,
    extras: tuple[Count, ...] = EXTRAS,
    separable: bool = True,
    bins: Index = 0,
    channels: Count = 3,
) -> nn.Module:
    """SSDLite on MobileNetV2: its first map is the expansion in the first block of stride 32, the next its last layer.

    Args:
        num_classes: of objects.
        anchors: in a cell of each map.
        width: multiplies the channels of the MobileNet, but for its last layer's.
        extras: channels of the maps behind it.
        separable: depthwise-separable ``extras`` and head (SSDLite); without, SSD300 with 3x3 convolutions.
        bins: of the distribution of each of a box's values; 0: the values themselves.
        channels: of the input.

    Raises:
        ValueError: anchors for another number of maps.
    """
    features: Any = mobilenet_v2(width=width, channels=channels).features
    strided = features[14].conv  # expand, filter with stride 2, project
    layers: dict[str, nn.Module] = {
        "early": nn.Sequential(*features[:14], strided[0]),
        "late": nn.Sequential(*strided[1:], *features[15:]),
    }
    return _ssd(layers, ("early", "late"), anchors, (num_classes, bins), extras, kernel=3, separable=separable)


@student("ssd_miniature")
def ssd_miniature(
    *,
    num_classes: Count = 10,
    anchors: tuple[Count, ...] = (4, 4, 4),
    width: Count = 16,
    separable: bool = False,
    bins: Index = 0,
    channels: Count = 3,
) -> nn.Module:
    """SSD on nine convolutions, for pictures of about 100 pixels: maps of strides 8, 16 and 32.

    Args:
        num_classes: of objects.
        anchors: in a cell of each map.
        width: channels of the first convolution.
        separable: depthwise-separable convolutions but for the first one, and 1x1 convolutions as the head.
        bins: of the distribution of each of a box's values; 0: the values themselves.
        channels: of the input.

    Raises:
        ValueError: anchors for another number of maps.
    """
    make = separable_layer if separable else full_layer
    layers: dict[str, nn.Module] = {"stem": Conv2dNormActivation(channels, width, stride=2, inplace=False)}
    inputs = width
    for number, factor in enumerate((2, 4, 8, 8), start=1):
        outputs = factor * width
        layers[f"stage{number}"] = nn.Sequential(make(inputs, outputs, 2), make(outputs, outputs, 1))
        inputs = outputs
    maps = ("stage2", "stage3", "stage4")
    return _ssd(layers, maps, anchors, (num_classes, bins), (), kernel=1 if separable else 3, separable=False)


def _ssd(
    layers: dict[str, nn.Module],
    maps: tuple[str, ...],
    anchors: tuple[int, ...],
    values: tuple[int, int],
    extras: tuple[int, ...],
    *,
    kernel: int,
    separable: bool,
    unpadded: int = 0,
) -> nn.Module:
    """The detector on a network's layers, with maps of shrinking size behind it.

    Args:
        layers: the network's, by name.
        maps: names of layers whose outputs are maps; the last of them is the last layer.
        anchors: in a cell of each map.
        values: classes of objects and bins.
        extras: channels of the maps behind the network.
        kernel: of the head's convolutions.
        separable: whether ``extras`` and head are.
        unpadded: how many of the last ``extras`` have stride 1 and no padding.
    """
    if unknown := [name for name in maps if name not in layers]:
        raise ValueError(f"maps are taken from {', '.join(layers)}, not from '{unknown[0]}'")
    channels = [_outputs(layers[name]) for name in maps] + list(extras)
    more = extra_maps(_outputs(list(layers.values())[-1]), extras, separable=separable, unpadded=unpadded)
    head = Head(channels, anchors, *values, kernel=3 if separable else kernel, separable=separable)
    names = [*maps, *more]
    return Detector(initialised(Body(layers | more, names)), head, len(names))


def _outputs(layer: nn.Module) -> int:
    """Channels of what it outputs."""
    return [module.out_channels for module in layer.modules() if isinstance(module, nn.Conv2d)][-1]
