"""Which anchor is to find which box.

Liu et al.: SSD: Single Shot MultiBox Detector. arXiv:1512.02325, section 2.2, "Matching strategy".
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import box_convert, box_iou

BACKGROUND, IGNORED = -1, -2
"""In place of a box's position: an anchor of no object, and one that neither finds nor misses anything."""


def matched(
    boxes: Float[Tensor, "boxes 4"],
    ignored: Int64[Tensor, " boxes"],
    anchors: Float[Tensor, "anchors 4"],
    threshold: float,
) -> Int64[Tensor, " anchors"]:
    """For each anchor the position of its box, or `BACKGROUND`, or `IGNORED`.

    Every box gets the anchor that overlaps it most, and all whose intersection over union with it is at least
    ``threshold``, where no other box overlaps them more.

    Args:
        boxes: left, top, right, bottom of one image.
        ignored: 1 for boxes, such as crowds, whose anchors are ignored.
        anchors: centre (x, y), width, height.
        threshold: the least overlap.
    """
    found = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    if not len(boxes):
        return found
    overlap = box_iou(boxes, box_convert(anchors, "cxcywh", "xyxy"))
    if ignored.any():
        crowds = ignored.bool()
        found[(overlap[crowds] >= threshold).any(0)] = IGNORED
        overlap = overlap.masked_fill(crowds[:, None], -1)
    best, box = overlap.max(0)
    found = torch.where(best >= threshold, box, found)
    wanted = (ignored == 0).nonzero()[:, 0]
    found[overlap[wanted].argmax(1)] = wanted
    return found
