"""Hinton, Vinyals & Dean: Distilling the Knowledge in a Neural Network. arXiv:1503.02531, section 2."""

from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._divergence import kl
from distill.registry.ranges import Temperature


@loss("kd")
def soft_targets(
    student: Float[Tensor, "batch classes *positions"],
    teacher: Float[Tensor, "batch classes *positions"],
    *,
    temperature: Temperature = 4.0,
) -> Float[Tensor, ""]:
    """Divergence of the student's softened class probabilities from the teacher's, mean over the batch.

    Of dense outputs (batch, classes, height, width) also the mean over positions.

    Args:
        student: logits.
        teacher: logits.
        temperature: divides the logits; above 1 it shows how the teacher ranks the wrong classes.
    """
    # T^2 keeps the gradient's size independent of T.
    return temperature**2 * kl(student, teacher, temperature)
