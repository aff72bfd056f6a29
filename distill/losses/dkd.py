"""Zhao et al.: Decoupled Knowledge Distillation. arXiv:2203.08679, equation 7.

Departs from the authors' code: both parts are computed in log space, where extreme logits stay finite.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill.losses import loss
from distill.losses._divergence import as_rows, kl, labels_of_rows, softened
from distill.registry.ranges import NonNegative, Temperature


@loss("dkd")
def decoupled(
    student: Float[Tensor, "batch classes *positions"],
    teacher: Float[Tensor, "batch classes *positions"],
    labels: Int[Tensor, " batch *pixels"],
    *,
    alpha: NonNegative = 1.0,
    beta: NonNegative = 8.0,
    temperature: Temperature = 4.0,
) -> Float[Tensor, ""]:
    """Knowledge about the labelled class (weight ``alpha``) apart from that about all others (weight ``beta``).

    Of dense outputs, with a label for each position, the mean over positions that have a class.

    Raises:
        ValueError: with two classes there are no "others" to compare.
    """
    if student.shape[1] < 3:
        raise ValueError(f"dkd compares the classes beside the label, but there are only {student.shape[1]}; use kd")
    labels, known = labels_of_rows(labels, student)
    student, teacher = (softened(as_rows(logits), temperature) for logits in (student, teacher))
    target = kl(label_against_rest(student, labels), label_against_rest(teacher, labels), known=known)
    others = kl(without_label(student, labels), without_label(teacher, labels), known=known)
    return temperature**2 * (alpha * target + beta * others)


def label_against_rest(
    logits: Float[Tensor, " batch classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, "batch 2"]:
    """Logits of two events, the label and any other class; no probability underflows on the way."""
    rest = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([logits.gather(1, labels[:, None]), rest], dim=1)


def without_label(
    logits: Float[Tensor, " batch classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, "batch others"]:
    """The logits of all classes but the label, in their order."""
    # By indices, not by a mask: how many values a mask selects, a GPU has to be asked.
    others = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    return logits.gather(1, others + (others >= labels[:, None]))
