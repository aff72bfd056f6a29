"""Shu et al.: Channel-wise Knowledge Distillation for Dense Prediction. arXiv:2011.13256, equations 3 and 4."""

from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import adapter
from distill.losses._divergence import kl
from distill.models.feature_maps import pool_to_smaller
from distill.registry.ranges import Temperature


@loss("cwd")
class ChannelWise(nn.Module):
    """Divergence of where each channel of the student fires from where the teacher's does.

    A softmax over its pixels makes a channel a distribution. Mean over channels and batch. A learned 1x1 convolution
    where channels differ; maps of different sizes are compared at the smaller one's.

    Args:
        student_shape: (batch, channels, height, width).
        teacher_shape: (batch, channels, height, width).
        temperature: divides all values; above 1 the less salient pixels count more.
    """

    def __init__(
        self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...], *, temperature: Temperature = 4.0
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.adapter = adapter(student_shape[1], teacher_shape[1])

    def forward(
        self,
        student: Float[Tensor, "batch channels_s height_s width_s"],
        teacher: Float[Tensor, "batch channels_t height_t width_t"],
    ) -> Float[Tensor, ""]:
        student, teacher = pool_to_smaller(self.adapter(student), teacher)
        # T^2 keeps the gradient's size independent of T.
        return self.temperature**2 * kl(rows(student), rows(teacher), self.temperature)


def rows(maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch*channels height*width"]:
    """Every channel of every image on its own."""
    return maps.flatten(0, 1).flatten(1)
