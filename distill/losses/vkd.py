"""Miles, Elezi & Deng: VkD: Improving Knowledge Distillation using Orthogonal Projections. arXiv:2403.06213, section 3.

As in the authors' code for classification: the projection has no bias, the teacher's features are normalised without
learned scales, and the distance is smooth L1.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from distill.losses import loss
from distill.models.feature_maps import embedding, embedding_size


@loss("vkd")
class OrthogonalProjection(nn.Module):
    """The student's features, turned into the teacher's space by a learned projection that keeps lengths and angles.

    Such a projection cannot learn the teacher's representation in the student's place. Compares the features that the
    classifiers read: vectors, or maps and tokens averaged over positions. Where the student has more features than the
    teacher, the projection is orthogonal on a subspace.

    Args:
        student_shape: of the student's tap.
        teacher_shape: of the teacher's.
    """

    def __init__(self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.projection = orthogonal(
            nn.Linear(embedding_size(student_shape), embedding_size(teacher_shape), bias=False)
        )

    def forward(self, student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"]) -> Float[Tensor, ""]:
        with torch.autocast(student.device.type, enabled=False):  # half precision is not orthogonal
            projected, target = self.projection(embedding(student)), embedding(teacher)
            return F.smooth_l1_loss(projected, F.layer_norm(target, target.shape[1:]))
