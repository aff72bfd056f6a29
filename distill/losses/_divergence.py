"""How far the class probabilities behind one set of logits are from those behind another."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distill.batch import IGNORED
from distill.models.feature_maps import widened


def softened(logits: Float[Tensor, "*shape"], temperature: float = 1.0) -> Float[Tensor, "*shape"]:
    """Logits divided by a temperature, in fp32 at least: bfloat16 has no digits to spare for the differences."""
    return widened(logits) / temperature


def divergences(
    student: Float[Tensor, "*shape"], teacher: Float[Tensor, "*shape"], temperature: float = 1.0
) -> Float[Tensor, "*shape"]:
    """The terms of KL(softmax(teacher / T) || softmax(student / T)) of logits, in fp32 at least, whose sum over
    dimension 1 it is.

    A class that the teacher masks, with a logit of minus infinity, adds nothing, even if the student masks it too.
    """
    own, target = (softened(logits, temperature).log_softmax(1) for logits in (student, teacher))
    own, target = (log.clamp(min=torch.finfo(log.dtype).min) for log in (own, target))
    return F.kl_div(own, target, reduction="none", log_target=True)


def kl(
    student: Float[Tensor, "batch classes *positions"],
    teacher: Float[Tensor, "batch classes *positions"],
    temperature: float = 1.0,
    known: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """KL(softmax(teacher / T) || softmax(student / T)) of logits, in fp32 at least.

    Mean over the batch and over the positions of dense outputs: its size does not depend on how many pixels there are.
    With ``known``, over rows of which that is true; 0 where there are none.
    """
    with torch.autocast(student.device.type, enabled=False):
        each = divergences(student, teacher, temperature).sum(1)
    return each.mean() if known is None else each.where(known, 0).sum() / known.sum().clamp(min=1)


def as_rows(logits: Float[Tensor, "batch classes *positions"]) -> Float[Tensor, "rows classes"]:
    """The logits of every position of every image; those of an image alone as they are."""
    return logits if logits.dim() == 2 else logits.movedim(1, -1).flatten(0, -2)


def labels_of_rows(
    labels: Int[Tensor, " batch *_"], logits: Float[Tensor, " batch classes *_"]
) -> tuple[Int[Tensor, " rows"], Bool[Tensor, " rows"] | None]:
    """A label for each of `as_rows`, and which rows count: None for all, or those of pixels that have a class.

    Of a mask of another size than the logits, the nearest pixels are read.

    Raises:
        ValueError: there is a label for each image, but logits for each position, or the reverse.
    """
    size = logits.shape[2:]
    if labels.dim() - 1 != len(size):
        raise ValueError(f"labels of {tuple(labels.shape)} are not for logits of {tuple(logits.shape)}: tap the output")
    if labels.dim() == 1:
        return labels, None
    if labels.shape[1:] != size:
        labels = F.interpolate(labels[:, None].float(), size)[:, 0].long()
    labels = labels.flatten()
    known = labels != IGNORED
    return labels.where(known, 0), known
