"""How much a network's outputs differ from those that it had before."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.ops import box_iou


def relative_change(before: Tensor, after: Tensor) -> float:
    """|after - before| / |before|, of all outputs together; NaN and infinity count as infinitely much."""
    change = float((after.double() - before.double()).norm() / before.double().norm().clamp(min=1e-30))
    return change if change == change else float("inf")


def same_class(before: Tensor, after: Tensor) -> float:
    """The part of the samples whose largest output is the same one."""
    return float((before.flatten(1).argmax(1) == after.flatten(1).argmax(1)).float().mean())


def kept_detections(before: Sequence[Tensor], after: Sequence[Tensor], overlap: float = 0.5) -> float:
    """The part of all detections that have a detection of the same class over them; 1 where there were none.

    Args:
        before: for each image (detections, 7): image, class, score, left, top, right, bottom.
        after: the same.
        overlap: intersection over union from which on a detection lies over another.
    """
    kept, total = 0, 0
    for old, new in zip(before, after, strict=True):
        same = (old[:, None, 3:] == new[None, :, 3:]).all(2)  # boxes without area overlap nothing
        over = (box_iou(old[:, 3:], new[:, 3:]) >= overlap) | same
        over &= old[:, None, 1] == new[None, :, 1]
        kept, total = kept + int(over.any(1).sum()), total + len(old)
    return kept / total if total else 1.0
