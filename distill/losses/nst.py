"""Huang & Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer. arXiv:1707.01219, equation 5
with the polynomial kernel of order 2 and no constant.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.models.feature_maps import pool_to_smaller, widened


@loss("nst")
def neuron_selectivity(
    student: Float[Tensor, "batch channels_s height_s width_s"],
    teacher: Float[Tensor, "batch channels_t height_t width_t"],
) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy between where the student's channels fire and where the teacher's do.

    A sample of either distribution is one channel's map, as a unit vector; how many there are may differ. The larger
    map is pooled to the smaller first. Mean over the batch.
    """
    student, teacher = map(selectivity, pool_to_smaller(student, teacher))
    return kernel(student, student) + kernel(teacher, teacher) - 2 * kernel(student, teacher)


def selectivity(features: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels pixels"]:
    """Where each channel fires, as one unit vector."""
    return F.normalize(widened(features).flatten(2), dim=2)


def kernel(
    a: Float[Tensor, "batch channels_a pixels"], b: Float[Tensor, "batch channels_b pixels"]
) -> Float[Tensor, ""]:
    """Mean of squared inner products over all pairs of one channel of ``a`` and one of ``b``."""
    # The three kernels nearly cancel: half precision would leave their rounding.
    with torch.autocast(a.device.type, enabled=False):
        return (a @ b.mT).square().mean()
