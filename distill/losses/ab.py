"""Heo et al.: Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons. arXiv:1811.03233,
equation 7.

As in the authors' code and RepDistiller's AB.py: the sum over neurons times 3 / 1000 so that a weight of 1 suits, each
earlier tap at half the weight of the next, and no connector where the channels agree already.

Belongs in a stage of its own, with ``task_weight: 0``, before the one that learns the task.
"""

from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import connector
from distill.losses._pairs import paired, sum_of_halved
from distill.models.feature_maps import as_map, pool_to_smaller, widened
from distill.registry.ranges import Positive

SCALE = 3 / 1000


@loss("ab")
class ActivationBoundaries(nn.Module):
    """Every neuron of the student should fire, by a margin, if and only if the teacher's does.

    Tap pre-activations: behind a ReLU no value is negative. The neurons are those of the teacher; 1x1 convolutions
    with batch norm connect the student to them. Maps of different sizes are compared at the smaller one's.

    Args:
        student_shapes: one for each tap, early to late.
        teacher_shapes: as many.
        margin: how far beyond zero a neuron of the student must be to count as right.

    Raises:
        ValueError: unequal numbers of taps.
    """

    def __init__(
        self,
        student_shapes: list[tuple[int, ...]],
        teacher_shapes: list[tuple[int, ...]],
        *,
        margin: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.connectors = nn.ModuleList(
            nn.Identity() if student[1] == teacher[1] else connector(student[1], teacher[1])
            for student, teacher in paired("ab", student_shapes, teacher_shapes)
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Float[Tensor, ""]:
        pairs = [pool_to_smaller(as_map(s), as_map(t)) for s, t in zip(student, teacher)]
        return SCALE * sum_of_halved(
            [self._wrong(widened(connect(s)), t) for connect, (s, t) in zip(self.connectors, pairs)]
        )

    def _wrong(
        self, student: Float[Tensor, " batch *neurons"], teacher: Float[Tensor, " batch *neurons"]
    ) -> Float[Tensor, ""]:
        """Squared distances to the right side of the margin: the sum over neurons, the mean over the batch."""
        towards_right = (teacher > 0).to(student.dtype) * 2 - 1
        return (self.margin - towards_right * student).relu().square().sum() / len(student)
