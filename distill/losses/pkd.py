"""Cao et al.: PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient.
arXiv:2207.02039, equations 3 to 5.

As in the paper, the variance is that of the batch; the authors' code has N - 1 in place of N, which multiplies the
value by (N - 1) / N of N pixels. Departs from both: the larger map is pooled to the smaller, and a learned 1x1
convolution stands where channels differ (in the paper they agree, as those of a feature pyramid).
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import adapter
from distill.models.feature_maps import as_map, pool_to_smaller, widened


@loss("pkd")
class Pearson(nn.Module):
    """1 - r, r the correlation of a student's channel with the teacher's over the batch's pixels; mean over channels.

    Blind to the scale and offset of either. Under DDP over the local batch only. (batch, features) vectors are
    compared as 1x1 maps.
    """

    def __init__(self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.adapter = adapter(student_shape[1], teacher_shape[1])

    def forward(self, student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"]) -> Float[Tensor, ""]:
        student, teacher = pool_to_smaller(self.adapter(as_map(student)), as_map(teacher))
        return F.mse_loss(standardised(student), standardised(teacher)) / 2


def standardised(
    features: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Each channel with mean 0 and variance 1 over batch and pixels; a constant one is 0."""
    return F.batch_norm(widened(features), None, None, training=True, eps=1e-8)
