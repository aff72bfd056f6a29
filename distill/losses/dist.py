"""Huang et al.: Knowledge Distillation from A Stronger Teacher. arXiv:2205.10536, the loss named DIST.

Equal to torchdistill's, which multiplies the sum by temperature^2. Departs from the paper's equation 5 where a row of
probabilities is constant: the correlation, there 0 / 0, is 0.

Compares the images of a batch with each other, and the positions of dense outputs; under DDP only those of the local
batch.
"""

from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._batch import refuse_a_batch_of_one
from distill.losses._divergence import as_rows, softened
from distill.registry.ranges import NonNegative, Temperature

CONSTANT = 1e-6
"""How much the values of a row differ by rounding alone, at most, of its length."""


@loss("dist")
def stronger_teacher(
    student: Float[Tensor, "batch classes *positions"],
    teacher: Float[Tensor, "batch classes *positions"],
    *,
    beta: NonNegative = 1.0,
    gamma: NonNegative = 1.0,
    temperature: Temperature = 1.0,
) -> Float[Tensor, ""]:
    """The student's probabilities correlate with the teacher's, as they need not be equal to be as good.

    Args:
        student: logits.
        teacher: logits.
        beta: weight of the correlation between the classes of each image.
        gamma: weight of the correlation between the images of the batch in each class.
        temperature: divides the logits.

    Raises:
        ValueError: one image correlates with nothing.
    """
    student, teacher = as_rows(student), as_rows(teacher)
    refuse_a_batch_of_one("dist", student)
    of_student = softened(student, temperature).softmax(dim=1)
    of_teacher = softened(teacher, temperature).softmax(dim=1)
    inter = 1 - correlation(of_student, of_teacher).mean()
    intra = 1 - correlation(of_student.T, of_teacher.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def correlation(student: Float[Tensor, " rows _"], teacher: Float[Tensor, " rows _"]) -> Float[Tensor, " rows"]:
    """Pearson's coefficient of each pair of rows; of a constant row, zero."""
    return (_standard(student) * _standard(teacher)).sum(1)


def _standard(rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Of mean 0 and length 1; a row that is constant but for rounding keeps its length.

    Divided by it, equal probabilities, as of a classifier that starts at zero, would send a gradient of 1e7.
    """
    centred = rows - rows.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    return centred / length.where(length > CONSTANT * rows.norm(dim=1, keepdim=True), 1)
