"""Peng et al.: Correlation Congruence for Knowledge Distillation. arXiv:1904.01802, the Gaussian kernel's expansion.

As in torchdistill: the norm of the difference, not its square, divided by the square of the batch; and embeddings of
any length, though the expansion is the Gaussian kernel only for those of length 1. RepDistiller's form compares
neighbours in the batch without a kernel, and its weights are not for this one.
Compares the images of a batch with each other; under DDP, those of the local batch only.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._batch import refuse_a_batch_of_one
from distill.models.feature_maps import embedding, embedding_size
from distill.registry.ranges import Count, Positive


@loss("cc")
class CorrelationCongruence(nn.Module):
    """Images correlate as they do for the teacher, in learned embeddings of both; a map is first averaged over pixels.

    Args:
        student_shape: of the student's features, the batch first.
        teacher_shape: of the teacher's.
        dimension: of the embeddings.
        gamma: of the kernel exp(-gamma |x - y|^2).
        order: the highest power of x.y in its expansion.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        *,
        dimension: Count = 128,
        gamma: Positive = 0.4,
        order: Count = 2,
    ) -> None:
        super().__init__()
        self.student_embedding = nn.Linear(embedding_size(student_shape), dimension)
        self.teacher_embedding = nn.Linear(embedding_size(teacher_shape), dimension)
        self.gamma, self.order = gamma, order

    def forward(
        self, student: Float[Tensor, "batch channels_s *_s"], teacher: Float[Tensor, "batch channels_t *_t"]
    ) -> Float[Tensor, ""]:
        """The loss.

        Raises:
            ValueError: one image correlates with nothing.
        """
        refuse_a_batch_of_one("cc", student)
        with torch.autocast(student.device.type, enabled=False):
            of_student = kernel(self.student_embedding(embedding(student)), self.gamma, self.order)
            of_teacher = kernel(self.teacher_embedding(embedding(teacher)), self.gamma, self.order)
            return torch.linalg.matrix_norm(of_student - of_teacher) / len(student) ** 2


def kernel(rows: Float[Tensor, "batch dimension"], gamma: float, order: int) -> Float[Tensor, "batch batch"]:
    """exp(-gamma |x - y|^2) of all pairs of unit vectors, by the first terms of its Taylor series in x.y."""
    products = rows @ rows.T
    terms = [(2 * gamma) ** power / math.factorial(power) * products**power for power in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(dim=0)
