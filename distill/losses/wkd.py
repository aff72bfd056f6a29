"""Lv, Yang & Li: Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation.
arXiv:2412.08139, section 3.2, the form for features, WKD-F.

Each channel of each cell of a grid is taken for a normal distribution of its pixels. Between such distributions with
independent channels, the squared 2-Wasserstein distance is that of their means plus that of their standard deviations.
As in the authors' code: sum over channels, mean over batch and cells. Departs from it in variances that are divided by
the number of pixels, not by one less, for a cell may be a single pixel; and in a connector that does not end in a ReLU.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import connector
from distill.models.feature_maps import as_map, widened
from distill.registry.ranges import Count, NonNegative

Moments = Float[Tensor, "batch channels grid grid"]

FLOOR = 1e-5
"""Added to variances: the gradient of a square root at 0 is infinite."""


@loss("wkd")
class WassersteinDistance(nn.Module):
    """Squared distance of the distributions of pixels, the student's after a learned 1x1 connector; sum over channels.

    Args:
        student_shape: (batch, channels, height, width).
        teacher_shape: (batch, channels, height, width); the maps may differ in size.
        grid: cells per side, at least 1; 1 takes the whole map for one distribution.
        mean_weight: weight of the means beside that of the standard deviations, which is 1.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        *,
        grid: Count = 1,
        mean_weight: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.connector = connector(student_shape[1], teacher_shape[1])
        self.grid, self.mean_weight = grid, mean_weight

    def forward(self, student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"]) -> Float[Tensor, ""]:
        mean_s, deviation_s = moments(self.connector(as_map(student)), self.grid)
        mean_t, deviation_t = moments(as_map(teacher), self.grid)
        means, deviations = (mean_s - mean_t).square(), (deviation_s - deviation_t).square()
        return (self.mean_weight * means + deviations).sum(dim=1).mean()


def moments(features: Float[Tensor, "batch channels height width"], grid: int) -> tuple[Moments, Moments]:
    """Mean and standard deviation of each channel over the pixels of each cell, in fp32 at least."""
    features = widened(features)
    # Around the mean of the whole map: the difference of two large squares would have no digits left.
    centre = features.mean(dim=(2, 3), keepdim=True)
    mean, square = (F.adaptive_avg_pool2d(one, grid) for one in (features - centre, (features - centre).square()))
    return mean + centre, ((square - mean.square()).clamp(min=0) + FLOOR).sqrt()
