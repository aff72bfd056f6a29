"""Zagoruyko & Komodakis: Paying More Attention to Attention. arXiv:1612.03928, equation 2.

As in the authors' code: the mean over channels, not the sum, and the mean of squares, not the norm.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.models.feature_maps import pool_to_smaller, widened
from distill.registry.ranges import Positive


@loss("at")
def attention_transfer(
    student: Float[Tensor, "batch channels_s height_s width_s"],
    teacher: Float[Tensor, "batch channels_t height_t width_t"],
    *,
    power: Positive = 2.0,
) -> Float[Tensor, ""]:
    """Mean squared difference of the two attention maps; the larger map is pooled to the smaller first."""
    student, teacher = pool_to_smaller(student, teacher)
    return (attention(student, power) - attention(teacher, power)).square().mean()


def attention(features: Float[Tensor, "batch channels height width"], power: float) -> Float[Tensor, "batch pixels"]:
    """Where a network looks: mean of |activation|^power over channels, as one unit vector per image."""
    # As one reduction, which is three times faster in channels-last layout; a unit vector has no use for the count.
    return F.normalize(torch.linalg.vector_norm(widened(features), power, dim=1).pow(power).flatten(1), dim=1)
