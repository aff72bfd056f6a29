"""Yang, Martinez, Bulat & Tzimiropoulos: Knowledge Distillation via Softmax Regression Representation Learning.
ICLR 2021, OpenReview ZzwDy_wiWv, L_FM and L_SR. It is not on arXiv; the report it grew out of is arXiv:2003.04289.

As in the authors' code: a learned connector comes before both parts, and both are means, over the batch and over
channels or classes. Departs from it: the teacher's logits are those of its features at the tap, averaged over the
pixels; they are its output wherever nothing but that average stands between tap and classifier.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import connector
from distill.losses._classifier import FrozenClassifier
from distill.models.feature_maps import as_map, embedding
from distill.registry.ranges import NonNegative


@loss("srrl")
class SoftmaxRegression(nn.Module):
    """The student's features should be the teacher's, and mean the same to the teacher's classifier.

    Compares the last map, or the vector that the classifier reads.

    Args:
        student_shape: of the student's tap.
        teacher_shape: of the teacher's.
        teacher_model: its last ``nn.Linear`` is the classifier.
        alpha: weight of the difference of features.
        beta: weight of the difference of logits.

    Raises:
        ValueError: the teacher has no ``nn.Linear``, or its last one does not read the tapped channels.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        teacher_model: nn.Module,
        *,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.classifier = FrozenClassifier(teacher_model, teacher_shape, "srrl")
        self.connector = nn.Sequential(connector(student_shape[1], teacher_shape[1]), nn.ReLU())

    def forward(self, student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"]) -> Float[Tensor, ""]:
        student, teacher = embedding(self.connector(as_map(student))), embedding(teacher)
        features = F.mse_loss(student, teacher)
        logits = F.mse_loss(self.classifier(student), self.classifier(teacher))
        return self.alpha * features + self.beta * logits
