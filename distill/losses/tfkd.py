"""Yuan et al.: Revisiting Knowledge Distillation via Label Smoothing Regularization. arXiv:1909.11723, Tf-KD_reg.

The divergence alone: cross-entropy is the stage's task, and the paper's multiplier the recipe's weight. There is no
T^2, as there is none in the paper's equation.

Departs from the authors' code, which softens the teacher's probabilities as if they were logits, leaves the student's
unsoftened, and takes the mean over the classes, not the sum.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill.losses import loss
from distill.losses._divergence import as_rows, kl, labels_of_rows, softened
from distill.registry.ranges import Share, Temperature


@loss("tfkd")
def teacher_free(
    student: Float[Tensor, "batch classes *positions"],
    labels: Int[Tensor, " batch *pixels"],
    *,
    confidence: Share = 0.99,
    temperature: Temperature = 20.0,
) -> Float[Tensor, ""]:
    """Divergence of the student's softened class probabilities from those of a teacher that is always right.

    Of dense outputs, with a label for each position, the mean over positions that have a class.

    Args:
        student: logits.
        labels: the right classes.
        confidence: the virtual teacher's probability of the right class, its other classes sharing the rest equally.
        temperature: divides the logits of both; a high one makes of the virtual teacher a smooth label.

    Raises:
        ValueError: the virtual teacher prefers a wrong class, or leaves nothing to the others.
    """
    labels, known = labels_of_rows(labels, student)
    student = as_rows(student)
    classes = student.shape[1]
    if not 1 / classes < confidence < 1:
        raise ValueError(
            f"tfkd: confidence is {confidence}, but with {classes} classes is above 1/{classes} and below 1"
        )
    wrong = torch.full_like(softened(student), math.log((1 - confidence) / (classes - 1)))
    teacher = wrong.scatter(1, labels[:, None], math.log(confidence))
    return kl(student, teacher, temperature, known)
