"""Huang et al.: Knowledge Distillation from A Stronger Teacher. arXiv:2205.10536, the loss named DIST.

Compares the images of a batch with each other; under DDP it sees only the local batch.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._batch import refuse_a_batch_of_one


@loss("dist")
def stronger_teacher(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
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
    refuse_a_batch_of_one("dist", student)
    ours = (student.float() / temperature).softmax(dim=1)
    theirs = (teacher.float() / temperature).softmax(dim=1)
    inter = 1 - correlation(ours, theirs).mean()
    intra = 1 - correlation(ours.T, theirs.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def correlation(student: Float[Tensor, "rows _"], teacher: Float[Tensor, "rows _"]) -> Float[Tensor, "rows"]:
    """Pearson's coefficient of each pair of rows; of a constant row, zero."""
    return F.cosine_similarity(student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True))
