"""Yim et al.: A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning.
CVPR 2017, equations 1 and 2.

As in RepDistiller's FSP.py (Tian et al. arXiv:1910.10699): the mean of the squares, not the sum, and average pooling,
not max pooling, where two maps of one network differ in size. Departs from both where the networks differ in channels,
which they refuse: a learned 1x1 convolution gives the student's map the teacher's.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import adapter
from distill.losses._pairs import paired
from distill.models.feature_maps import pool_to_smaller, widened


@loss("fsp")
class FlowOfSolution(nn.Module):
    """From one tap to the next, channels should grow out of channels as they do in the teacher.

    Sums over consecutive taps. The two networks' maps may differ in size.

    Args:
        student_shapes: one (batch, channels, height, width) for each tap, early to late.
        teacher_shapes: as many.

    Raises:
        ValueError: unequal numbers of taps, or a single one.
    """

    def __init__(self, student_shapes: list[tuple[int, ...]], teacher_shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        pairs = paired("fsp", student_shapes, teacher_shapes)
        if len(pairs) < 2:
            raise ValueError("fsp compares what happens between two taps of a network, but there is one; name more")
        self.adapters = nn.ModuleList(adapter(student[1], teacher[1]) for student, teacher in pairs)

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Float[Tensor, ""]:
        student = [adapt(features) for adapt, features in zip(self.adapters, student)]
        differences = [
            (flow_matrix(*of_student) - flow_matrix(*of_teacher)).square().mean()
            for of_student, of_teacher in zip(pairwise(student), pairwise(teacher))
        ]
        return torch.stack(differences).sum()


def flow_matrix(
    earlier: Float[Tensor, "batch channels_1 height_1 width_1"],
    later: Float[Tensor, "batch channels_2 height_2 width_2"],
) -> Float[Tensor, "batch channels_1 channels_2"]:
    """Inner products of all channels of one map with all of another, mean over pixels."""
    earlier, later = pool_to_smaller(earlier, later)
    # Sums over thousands of pixels leave the range of half precision.
    with torch.autocast(earlier.device.type, enabled=False):
        rows, columns = widened(earlier).flatten(2), widened(later).flatten(2)
        return rows @ columns.mT / rows.shape[2]
