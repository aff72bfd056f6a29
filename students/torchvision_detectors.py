"""Detectors of torchvision as plain networks: one tensor of raw values per anchor, for any size of image.

Body and head keep torchvision's names, so its state dicts load. They resize, normalise and decode nothing: that is done
by data and task.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models._meta import _COCO_CATEGORIES
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import FrozenBatchNorm2d

from distill.registry.ranges import Count
from students import student

CENTRE, SIZE = 0.1, 0.2
"""What SSD divides the encoded centre and size of a box by; RetinaNet and FCOS do not."""
COCO_IDS = [number for number, name in enumerate(_COCO_CATEGORIES) if number and name != "N/A"]
"""Of the 80 classes of COCO, among the 91 outputs of torchvision's weights."""
SMALLEST = 1e-3
"""Of FCOS' distances, in anchors, before their logarithm."""


class Convert(nn.Module):
    """What SSD's heads output as one tensor (batch, anchors, 1 + num_classes + 4).

    Args:
        categories: of the head's own classes those that are kept, in their order; None: all.
    """

    def __init__(self, categories: Sequence[int] | None) -> None:
        super().__init__()
        self.categories = categories

    def forward(self, found: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([self._logits(found), self._boxes(found)], dim=2)

    def _logits(self, found: Mapping[str, Tensor]) -> Tensor:
        """Of the background and of the classes, for softmax."""
        logits = found["cls_logits"]
        return logits if self.categories is None else logits[..., [0, *self.categories]]

    def _boxes(self, found: Mapping[str, Tensor]) -> Tensor:
        return found["bbox_regression"]


class ConvertSigmoid(Convert):
    """For heads whose classes are independent of each other, with boxes encoded without SSD's divisors.

    The background's logit is 0: for an object of one class, softmax is then the sigmoid of that class.
    """

    def _logits(self, found: Mapping[str, Tensor]) -> Tensor:
        logits = found["cls_logits"]
        return F.pad(logits if self.categories is None else logits[..., list(self.categories)], (1, 0))

    def _boxes(self, found: Mapping[str, Tensor]) -> Tensor:
        centre, size = found["bbox_regression"].split(2, dim=2)
        return torch.cat([centre / CENTRE, size / SIZE], dim=2)


class ConvertSides(ConvertSigmoid):
    """For FCOS: distances to the four sides, in anchors; a score is the root of class probability times centredness."""

    def _logits(self, found: Mapping[str, Tensor]) -> Tensor:
        logits = super()._logits(found)[..., 1:]
        log_score = (F.logsigmoid(logits) + F.logsigmoid(found["bbox_ctrness"])) / 2
        return F.pad(log_score - torch.log1p(-log_score.exp().clamp(max=1 - 1e-6)), (1, 0))

    def _boxes(self, found: Mapping[str, Tensor]) -> Tensor:
        before, after = found["bbox_regression"].split(2, dim=2)  # left and top, right and bottom
        size = (before + after).clamp(min=SMALLEST)
        return torch.cat([(after - before) / 2 / CENTRE, size.log() / SIZE], dim=2)


class Wrapped(nn.Module):
    """torchvision's body and head; see `students._detector.Detector` for the output, ``maps`` and `reader`.

    Args:
        network: torchvision's detector.
        maps: how many maps its head reads.
        convert: from what its head outputs to one tensor.
    """

    def __init__(self, network: Any, maps: int, convert: Convert) -> None:
        super().__init__()
        self.backbone, self.head, self.convert = network.backbone, network.head, convert
        self.maps = nn.ModuleList(nn.Identity() for _ in range(maps))
        self.stages = tuple(f"maps.{number}" for number in range(maps))
        self.requires_grad_(True)  # torchvision freezes early layers where it expects weights

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images).values()
        return self.convert(self.head([tap(values) for tap, values in zip(self.maps, features, strict=True)]))

    def reader(self) -> nn.Module:
        return nn.Sequential(self.head, self.convert)


@student("ssd300_vgg16")
def ssd300_vgg16(
    *,
    num_classes: Count = 80,
    anchors: tuple[Count, ...] = (4, 6, 6, 6, 4, 4),
    coco: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """Liu et al., arXiv:1512.02325: maps of strides 8, 16, 32, 64, 100 and 300 at 300 pixels.

    Args:
        num_classes: of objects.
        anchors: in a cell of each map.
        coco: made for torchvision's weights of 91 outputs, of which those of COCO's 80 classes are used.
        channels: of the input, 3.
    """
    outputs = _outputs(num_classes, coco, channels)
    network = detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=outputs)
    sizes = [512, 1024, 512, 256, 256, 256]
    network.head = SSDHead(sizes, _per_map(anchors, len(sizes)), outputs)
    for layer in network.head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
    return Wrapped(network, len(sizes), Convert(COCO_IDS if coco else None))


@student("ssdlite320_mobilenet_v3_large")
def ssdlite320_mobilenet_v3_large(
    *,
    num_classes: Count = 80,
    anchors: tuple[Count, ...] = (6, 6, 6, 6, 6, 6),
    coco: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """Howard et al., Searching for MobileNetV3, arXiv:1905.02244, section 6.3: maps of strides 16 to 512.

    Args:
        num_classes: of objects.
        anchors: in a cell of each map.
        coco: made for torchvision's weights of 91 outputs, of which those of COCO's 80 classes are used.
        channels: of the input, 3.
    """
    outputs = _outputs(num_classes, coco, channels)
    network = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=outputs)
    sizes = [672, 480, 512, 256, 256, 128]
    norm = network.head.classification_head.module_list[0][0][1]

    def normalise(features: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(features, eps=norm.eps, momentum=norm.momentum)

    network.head = SSDLiteHead(sizes, _per_map(anchors, len(sizes)), outputs, normalise)
    return Wrapped(network, len(sizes), Convert(COCO_IDS if coco else None))


@student("retinanet_resnet50_fpn_v2")
def retinanet_resnet50_fpn_v2(
    *,
    num_classes: Count = 80,
    anchors: tuple[Count, ...] = (9, 9, 9, 9, 9),
    coco: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002: a feature pyramid of strides 8 to 128.

    Args:
        num_classes: of objects.
        anchors: in a cell of each map, as many in every one.
        coco: made for torchvision's weights of 91 outputs, of which those of COCO's 80 classes are used.
        channels: of the input, 3.
    """
    outputs = _outputs(num_classes, coco, channels) - (not coco)
    network = detection.retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=outputs)
    count = _one_for_all(anchors)
    network.head = RetinaNetHead(256, count, outputs, norm_layer=lambda features: nn.GroupNorm(32, features))
    return Wrapped(network, len(anchors), ConvertSigmoid(COCO_IDS if coco else None))


@student("fcos_resnet50_fpn")
def fcos_resnet50_fpn(
    *,
    num_classes: Count = 80,
    anchors: tuple[Count, ...] = (1, 1, 1, 1, 1),
    coco: bool = False,
    channels: Count = 3,
) -> nn.Module:
    """Tian et al., FCOS, arXiv:1904.01355: a feature pyramid of strides 8 to 128, one anchor of that size in each cell.

    Args:
        num_classes: of objects.
        anchors: in a cell of each map: 1.
        coco: made for torchvision's weights of 91 outputs, of which those of COCO's 80 classes are used.
        channels: of the input, 3.
    """
    outputs = _outputs(num_classes, coco, channels) - (not coco)
    if _one_for_all(anchors) != 1:
        raise ValueError(f"it has one anchor in each cell, not {list(anchors)}: set task.scales to one value a map")
    network = detection.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=outputs)
    if coco:  # these weights were trained with fixed statistics
        for path, module in list(network.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                network.set_submodule(path, FrozenBatchNorm2d(module.num_features))
    return Wrapped(network, len(anchors), ConvertSides(COCO_IDS if coco else None))


def _outputs(num_classes: int, coco: bool, channels: int) -> int:
    """Outputs of the head for classes and background."""
    if channels != 3:
        raise ValueError(f"torchvision's detectors read 3 channels, not {channels}")
    if coco and num_classes != len(COCO_IDS):
        raise ValueError(f"coco=true gives the 80 classes of COCO, not {num_classes}")
    return len(_COCO_CATEGORIES) if coco else num_classes + 1


def _per_map(anchors: Sequence[int], maps: int) -> list[int]:
    if len(anchors) != maps:
        raise ValueError(f"anchors are given for {len(anchors)} maps, but the network has {maps}")
    return list(anchors)


def _one_for_all(anchors: Sequence[int]) -> int:
    """The number of anchors of heads that read every map with the same layers."""
    if len(set(_per_map(anchors, 5))) > 1:
        raise ValueError(f"its head has the same number of anchors in the cells of all maps, not {list(anchors)}")
    return anchors[0]
