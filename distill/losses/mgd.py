"""Yang et al.: Masked Generative Distillation. arXiv:2205.01529, equations 2 to 5.

As in the authors' code: the sum over all values, divided by the batch only (hence weights of 2e-5 for detection, 7e-5
for classification). For classification that code masks 0.15 of the channels, not pixels.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import adapter
from distill.models.feature_maps import pool_to_smaller, widened
from distill.registry.ranges import BelowOne


@loss("mgd")
class MaskedGeneration(nn.Module):
    """From a student's map with random holes, two convolutions must generate the teacher's whole map.

    A learned 1x1 convolution where channels differ; maps of different sizes are compared at the smaller one's.

    Args:
        student_shape: (batch, channels, height, width).
        teacher_shape: (batch, channels, height, width).
        mask_ratio: the share that is masked, in [0, 1).
        mask: what is masked in each image, pixels of all channels or channels at all pixels.

    Raises:
        ValueError: no such share.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        *,
        mask_ratio: BelowOne = 0.65,
        mask: Literal["pixels", "channels"] = "pixels",
    ) -> None:
        super().__init__()
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"mgd: mask_ratio is {mask_ratio}; it must be at least 0 and below 1")
        self.mask_ratio, self.mask = mask_ratio, mask
        channels = teacher_shape[1]
        self.adapter = adapter(student_shape[1], channels)
        self.generation = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        )

    def forward(
        self,
        student: Float[Tensor, "batch channels_s height_s width_s"],
        teacher: Float[Tensor, "batch channels_t height_t width_t"],
    ) -> Float[Tensor, ""]:
        student, teacher = pool_to_smaller(self.adapter(student), teacher)
        batch, channels, height, width = student.shape
        kept = (1, height, width) if self.mask == "pixels" else (channels, 1, 1)
        kept_pixels = torch.rand(batch, *kept, device=student.device) >= self.mask_ratio
        return (widened(self.generation(student * kept_pixels)) - widened(teacher)).square().sum() / batch
