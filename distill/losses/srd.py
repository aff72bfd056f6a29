"""Miles & Mikolajczyk: Understanding the Role of the Projector in Knowledge Distillation. arXiv:2303.11098, section 3.

A linear projector, batch normalisation of both sides without learned scales, and the logarithm of a sum of powers.
Departs from the authors' code in a mean in place of the sum: the gradients are the same, and the value does not depend
on the number of features and samples.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._batch import refuse_a_batch_of_one
from distill.models.feature_maps import embedding, embedding_size
from distill.registry.ranges import Positive

FLOOR = 1e-6
"""Added before the logarithm, which has no value for a perfect student."""


@loss("srd")
class ProjectedLogSum(nn.Module):
    """Logarithm of the mean power of the differences between normalised features; falls without bound.

    Compares the features that the classifiers read: vectors, or maps and tokens averaged over positions. Batch
    statistics are those of all processes on GPUs, on CPUs of the local batch.

    Args:
        student_shape: of the student's tap.
        teacher_shape: of the teacher's.
        power: of the absolute differences; large ones count the more the higher it is.

    Raises:
        ValueError: a batch of one has no statistics.
    """

    def __init__(
        self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...], *, power: Positive = 4.0
    ) -> None:
        super().__init__()
        features = embedding_size(teacher_shape)
        self.projector = nn.Linear(embedding_size(student_shape), features)
        self.student_norm, self.teacher_norm = (nn.BatchNorm1d(features, affine=False) for _ in range(2))
        self.power = power

    def forward(self, student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"]) -> Float[Tensor, ""]:
        refuse_a_batch_of_one("srd", student)
        with torch.autocast(student.device.type, enabled=False):
            projected = self.student_norm(self.projector(embedding(student)))
            difference = projected - self.teacher_norm(embedding(teacher))
            return (difference.abs().pow(self.power).mean() + FLOOR).log()
