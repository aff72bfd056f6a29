"""Liu et al.: Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation. arXiv:2202.03680.

ICKD-C, the form for classification, with the sizes of the authors' CIFAR code: every row of a correlation matrix is a
unit vector, and the squared differences are summed, then divided by the teacher's channels and by the batch.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import connector
from distill.models.feature_maps import widened


@loss("ickd")
class InterChannelCorrelation(nn.Module):
    """The student's channels, after a learned 1x1 connector, are as alike or diverse as the teacher's.

    Correlations are sums over an image's pixels, so that the maps may have different sizes.
    """

    def __init__(self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.connector = connector(student_shape[1], teacher_shape[1])

    def forward(
        self,
        student: Float[Tensor, "batch channels_s height_s width_s"],
        teacher: Float[Tensor, "batch channels_t height_t width_t"],
    ) -> Float[Tensor, ""]:
        difference = correlations(self.connector(student)) - correlations(teacher)
        return difference.square().sum(dim=(1, 2)).mean() / teacher.shape[1]


def correlations(features: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels channels"]:
    """Inner products between all channels of an image, each row a unit vector."""
    # Sums over thousands of pixels leave the range of half precision.
    with torch.autocast(features.device.type, enabled=False):
        flat = widened(features).flatten(2)
        return F.normalize(flat @ flat.mT, dim=2)
