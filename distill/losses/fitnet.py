"""Romero et al.: FitNets: Hints for Thin Deep Nets. arXiv:1412.6550, equation 3."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import connector
from distill.models.feature_maps import as_map, pool_to_smaller


@loss("fitnet")
class Hint(nn.Module):
    """Mean squared error between the teacher's map and the student's after a learned 1x1 regressor.

    Maps of different sizes are compared at the smaller one's; (batch, features) vectors are compared as 1x1 maps.
    """

    def __init__(self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.regressor = connector(student_shape[1], teacher_shape[1])  # with batch norm, as in RepDistiller's form

    def forward(self, student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"]) -> Float[Tensor, ""]:
        student, teacher = pool_to_smaller(as_map(student), as_map(teacher))
        return F.mse_loss(self.regressor(student), teacher)
