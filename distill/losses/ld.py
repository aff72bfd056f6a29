"""Zheng et al.: Localization Distillation for Dense Object Detection. arXiv:2102.12252, equations 3 and 4.

For heads that give each value of a box as a distribution over bins (Li et al., Generalized Focal Loss,
arXiv:2006.04388). Departs from the paper: anchors are weighted by the teacher's probability of an object, in place of
its main and "valuable" regions.
"""

from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._anchors import foreground
from distill.losses._divergence import divergences
from distill.registry.ranges import Temperature


@loss("ld")
def localization(student: list[Tensor], teacher: list[Tensor], *, temperature: Temperature = 10.0) -> Float[Tensor, ""]:
    """Divergence of the distributions of every box's four values, mean over the objects.

    Args:
        student: the parts ``":bins"`` (batch, bins, 4, anchors) and ``":classes"`` (batch, 1 + classes, anchors).
        teacher: the same; they have them where the task says ``bins``.
        temperature: divides the logits of the bins.

    Raises:
        ValueError: other taps.
    """
    if [bins.dim() for bins in (*student, *teacher)] != [4, 3, 4, 3]:
        raise ValueError("ld reads two taps of each network: student: [':bins', ':classes'], and teacher alike")
    divergence = temperature**2 * divergences(student[0], teacher[0], temperature).sum((1, 2))  # (batch, anchors)
    objects = foreground(teacher[1])
    return (objects * divergence).sum() / objects.sum().clamp(min=1)
