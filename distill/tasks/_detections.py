"""Objects found in an image."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms, box_iou


class Detections(NamedTuple):
    """The objects found in one image, the most probable first."""

    boxes: Float[Tensor, "objects 4"]
    """Left, top, right, bottom in pixels of the inputs."""
    scores: Float[Tensor, " objects"]
    labels: Int64[Tensor, " objects"]


def suppressed(
    boxes: Float[Tensor, "anchors 4"], scores: Float[Tensor, "anchors classes"], threshold: float, nms: float, most: int
) -> Detections:
    """Scores above the threshold, but where a more probable box of the same class overlaps by more than ``nms``."""
    anchor, label = (scores > threshold).nonzero(as_tuple=True)
    chosen, probable = boxes[anchor], scores[anchor, label]
    kept = batched_nms(chosen, probable, label, nms)[:most]
    return Detections(chosen[kept], probable[kept], label[kept])


def found_again(
    ones: Detections,
    others: Detections,
    wanted: Bool[Tensor, " ones"],
    counted: Bool[Tensor, " others"],
    threshold: float = 0.5,
) -> Bool[Tensor, " wanted"]:
    """Which of the wanted objects are among the counted others: of the same class, at the same place."""
    alike = (ones.labels[wanted][:, None] == others.labels[counted]) & (
        box_iou(ones.boxes[wanted], others.boxes[counted]) >= threshold
    )
    return alike.any(1)
