"""Romero et al.: FitNets: Hints for Thin Deep Nets. arXiv:1412.6550, equation 3."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._pooling import pool_to_smaller


@loss("fitnet")
class Hint(nn.Module):
    """Mean squared error between the teacher's map and the student's after a learned 1x1 regressor.

    Maps of different sizes are compared at the smaller one's; (batch, features) vectors are compared as 1x1 maps.
    """

    def __init__(self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...]) -> None:
        super().__init__()
        # Batch norm lets the regressor reach the teacher's scale at any learning rate, as in RepDistiller's form.
        self.regressor = nn.Sequential(
            nn.Conv2d(student_shape[1], teacher_shape[1], kernel_size=1, bias=False), nn.BatchNorm2d(teacher_shape[1])
        )

    def forward(self, student: Float[Tensor, "batch *_s"], teacher: Float[Tensor, "batch *_t"]) -> Float[Tensor, ""]:
        student, teacher = pool_to_smaller(as_map(student), as_map(teacher))
        return F.mse_loss(self.regressor(student), teacher)


def as_map(features: Float[Tensor, "batch *_"]) -> Float[Tensor, "batch _ _ _"]:
    """(batch, features) as (batch, features, 1, 1); a map as it is."""
    return features[:, :, None, None] if features.dim() == 2 else features
