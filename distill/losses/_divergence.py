"""How far the class probabilities behind one set of logits are from those behind another."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def softened(logits: Float[Tensor, "*shape"], temperature: float = 1.0) -> Float[Tensor, "*shape"]:
    """Logits divided by a temperature, in fp32 at least: bfloat16 has no digits to spare for the differences."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature


def kl(
    student: Float[Tensor, "batch classes *positions"],
    teacher: Float[Tensor, "batch classes *positions"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """KL(softmax(teacher / T) || softmax(student / T)) of logits, in fp32 at least.

    Mean over the batch and over the positions of dense outputs: its size does not depend on how many pixels there are.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = softened(student, temperature), softened(teacher, temperature)
        total = F.kl_div(F.log_softmax(student, 1), F.log_softmax(teacher, 1), reduction="sum", log_target=True)
    return total / (student.numel() // student.shape[1])


def as_rows(logits: Float[Tensor, "batch classes *positions"]) -> Float[Tensor, "rows classes"]:
    """The logits of every position of every image; those of an image alone as they are."""
    return logits if logits.dim() == 2 else logits.movedim(1, -1).flatten(0, -2)
