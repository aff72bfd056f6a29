"""Chen et al.: Learning Efficient Object Detection Models with Knowledge Distillation. NIPS (2017), section 3.

Departs from the paper: anchors are weighted by the teacher's probability of an object, not by a fixed weight for the
background; and the student follows the teacher's boxes themselves, as its "bounded" regression would everywhere.
"""

from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._anchors import anchor_difference
from distill.registry.ranges import NonNegative, Temperature


@loss("detection_kd")
def detection_kd(
    student: list[Tensor],
    teacher: list[Tensor],
    *,
    temperature: Temperature = 2.0,
    boxes: NonNegative = 1.0,
    background: NonNegative = 0.0,
) -> Float[Tensor, ""]:
    """Divergence of classes and smooth L1 of boxes between two detectors of the same anchors, mean over the objects.

    Args:
        student: the parts ``":classes"`` (batch, 1 + classes, anchors) and ``":boxes"`` (batch, 4, anchors).
        teacher: the same.
        temperature: divides the logits.
        boxes: weight of the boxes.
        background: weight of anchors that are empty for the teacher; there are hundreds for each object.

    Raises:
        ValueError: other taps.
    """
    if [part.dim() for part in (*student, *teacher)] != [3] * 4:
        raise ValueError("detection_kd reads two taps of each network: student: [':classes', ':boxes'], teacher alike")
    return anchor_difference(student, teacher, temperature=temperature, boxes=boxes, background=background)
