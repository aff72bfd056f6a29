"""Ahn et al.: Variational Information Distillation for Knowledge Transfer. arXiv:1904.05835, equations 4 to 6.

As in RepDistiller's VID.py: the mean, not the sum, over all elements, and no constant term; the hidden layers of the
mean's network have the teacher's channels.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.models.feature_maps import as_map, pool_to_smaller, widened
from distill.registry.ranges import Positive

SMALLEST_VARIANCE = 1e-5


@loss("vid")
class VariationalInformation(nn.Module):
    """How surprising the teacher's map is under a normal distribution whose mean is learned from the student's.

    One variance per channel of the teacher is learned too: channels that the student cannot follow come to count less.
    The value may be negative. Maps of different sizes are compared at the smaller one's; (batch, features) vectors as
    1x1 maps.

    Args:
        student_shape: begins with batch and channels.
        teacher_shape: begins with batch and channels.
        initial_variance: of every channel, above 1e-5.

    Raises:
        ValueError: no such variance.
    """

    def __init__(
        self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...], *, initial_variance: Positive = 5.0
    ) -> None:
        super().__init__()
        if initial_variance <= SMALLEST_VARIANCE:
            raise ValueError(f"vid: initial_variance is {initial_variance}; it must be above {SMALLEST_VARIANCE}")
        channels = teacher_shape[1]
        self.mean = nn.Sequential(
            nn.Conv2d(student_shape[1], channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=1, bias=False),
        )
        inverse_softplus = math.log(math.expm1(initial_variance - SMALLEST_VARIANCE))
        self.raw_variance = nn.Parameter(torch.full((channels,), inverse_softplus))

    def forward(self, student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"]) -> Float[Tensor, ""]:
        student, teacher = pool_to_smaller(as_map(student), as_map(teacher))
        variance = (F.softplus(self.raw_variance) + SMALLEST_VARIANCE)[:, None, None]
        error = widened(self.mean(student)) - widened(teacher)
        return (error.square() / variance + variance.log()).mean() / 2
