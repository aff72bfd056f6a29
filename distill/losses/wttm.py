"""Zheng & Yang: Knowledge Distillation Based on Transformed Teacher Matching. arXiv:2402.11148, section 4, WTTM.

The temperature softens the teacher alone. A softened distribution is the power 1/T of the teacher's probabilities, of
sum 1; the sum of the powers before that, large where the teacher is unsure, weighs the sample.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._divergence import divergences, softened
from distill.registry.ranges import Temperature


@loss("wttm")
def transformed_teacher(
    student: Float[Tensor, "batch classes *positions"],
    teacher: Float[Tensor, "batch classes *positions"],
    *,
    temperature: Temperature = 4.0,
) -> Float[Tensor, ""]:
    """Divergence of the student's probabilities, at temperature 1, from powers of the teacher's; weighted mean.

    Of dense outputs (batch, classes, height, width) also the mean over positions.

    Args:
        student: logits.
        teacher: logits.
        temperature: the inverse of the power; 1 and above in the paper; at 1 this is kd at temperature 1.
    """
    with torch.autocast(student.device.type, enabled=False):
        powers = F.log_softmax(softened(teacher), 1) / temperature
        weights = powers.exp().sum(1)
        return (weights * divergences(student, powers).sum(1)).mean()
