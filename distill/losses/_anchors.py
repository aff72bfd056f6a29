"""How far what one detector says about its anchors is from what another says about the same ones."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill.losses._divergence import divergences
from distill.models.feature_maps import widened


def foreground(logits: Float[Tensor, "batch classes anchors"]) -> Float[Tensor, "batch anchors"]:
    """The probability that there is an object, of any class but the first, the background."""
    return 1 - widened(logits).softmax(1)[:, 0]


def anchor_difference(
    student: Sequence[Tensor], teacher: Sequence[Tensor], *, temperature: float, boxes: float, background: float
) -> Float[Tensor, ""]:
    """KL divergence of classes and smooth L1 of boxes, averaged over anchors by the teacher's foreground probability.

    Args:
        student: logits (batch, 1 + classes, anchors) and encoded boxes (batch, 4, anchors).
        teacher: the same of the same anchors.
        temperature: divides the logits; the divergence is multiplied by its square.
        boxes: weight of the boxes.
        background: added to each anchor's weight for its classes: what an anchor counts that the teacher finds empty.
    """
    with torch.autocast(student[0].device.type, enabled=False):
        objects = foreground(teacher[0])
        divergence = temperature**2 * divergences(student[0], teacher[0], temperature).sum(1)
        distance = F.smooth_l1_loss(widened(student[1]), widened(teacher[1]), reduction="none").sum(1)
        total = ((objects + background) * divergence).sum() + boxes * (objects * distance).sum()
        return total / objects.sum().clamp(min=1)
