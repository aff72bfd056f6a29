"""Lee, Kim & Song: Self-supervised Knowledge Distillation Using Singular Value Decomposition. arXiv:1807.06819.

As in RepDistiller: the student offers three more directions than the teacher has, from which its best are matched.

Departs from it in what singular vectors leave open. Their signs, there an accident of the decomposition on which its
values depend, are set on the teacher's side, and the student's follow. Their gradient, infinite between equal singular
values (channels that are silent suffice), is damped there, where RepDistiller lets it be. And where the networks differ
in channels, which it refuses, a learned 1x1 convolution gives the student's map the teacher's.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import adapter
from distill.losses._pairs import paired
from distill.models.feature_maps import widened
from distill.registry.ranges import Count

Directions = Float[Tensor, "batch _ directions"]

SPARE = 3
"""Directions of the student beyond the teacher's: its order of importance may be another."""
NARROW = 1e-3
"""Gap between two squared singular values, as a share of their sum, below which the gradient is damped."""


@loss("kdsvd")
class SingularVectors(nn.Module):
    """How the main directions of channel space change from each tap to the next, compared by radial basis functions.

    Args:
        student_shapes: one (batch, channels, height, width) for each tap, early to late.
        teacher_shapes: as many. Where channels differ, a learned 1x1 convolution gives the student's map the teacher's.
        components: directions per map.

    Raises:
        ValueError: unequal numbers of taps, a single one, or a map with too few channels for ``components``.
    """

    def __init__(
        self,
        student_shapes: list[tuple[int, ...]],
        teacher_shapes: list[tuple[int, ...]],
        *,
        components: Count = 1,
    ) -> None:
        super().__init__()
        pairs = paired("kdsvd", student_shapes, teacher_shapes)
        if len(pairs) < 2:
            raise ValueError("kdsvd compares the changes between taps, but there is one; name more")
        self.adapters = nn.ModuleList(adapter(student[1], teacher[1]) for student, teacher in pairs)
        self.components = components

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Float[Tensor, ""]:
        adapted = [adapt(features) for adapt, features in zip(self.adapters, student)]
        matched = [match(s, t, self.components) for s, t in zip(adapted, teacher)]
        changes = [
            (radial(s, next_s) - radial(t, next_t)).square().sum(dim=(1, 2, 3)).mean()
            for (s, t), (next_s, next_t) in pairwise(matched)
        ]
        return torch.stack(changes).sum()


def match(student: Tensor, teacher: Tensor, components: int) -> tuple[Directions, Directions]:
    """The teacher's main directions and the student's nearest, both weighted by the teacher's singular values."""
    if components > (most := min(teacher[0].flatten(1).shape)):
        raise ValueError(f"kdsvd: components is {components}, but a map of {tuple(teacher.shape)} has only {most}")
    with torch.autocast(student.device.type, enabled=False):
        teacher_directions, values = decompose(teacher, components)
        teacher_directions = teacher_directions * teacher_directions.sum(dim=1, keepdim=True).sign()
        student_directions, _ = decompose(student, components + SPARE)
        cosines = student_directions.mT @ teacher_directions
        best = cosines.abs().argmax(dim=1, keepdim=True)
        chosen = student_directions.gather(2, best.expand_as(teacher_directions)) * cosines.gather(1, best).sign()
        return chosen * values, teacher_directions * values


def radial(directions: Directions, following: Directions) -> Float[Tensor, "batch following_channels channels d"]:
    """Likeness of every channel of one map to every channel of the next, in each direction."""
    return (-(following[:, :, None] - directions[:, None]).square() / 8).exp()


def decompose(features: Tensor, count: int) -> tuple[Directions, Float[Tensor, "batch 1 directions"]]:
    """Leading right singular vectors of each image's (pixels, channels) matrix, and its singular values as a unit row.

    The vectors' gradient is that of perturbation theory: each turns towards every other by the share of the change
    between them, divided by the gap of their squared singular values; the division is damped where gaps are narrow.
    """
    # Of unit norm, so that what is narrow does not depend on the activations' scale.
    pixels = F.normalize(widened(features).flatten(1), dim=1).unflatten(1, (features.shape[1], -1)).mT
    count = min(count, *pixels.shape[1:])
    with torch.no_grad():
        # Many times faster than a singular value decomposition; squares need twice the digits.
        squares, vectors = torch.linalg.eigh(pixels.double().mT @ pixels.double())
        squares, vectors = squares.flip(1).clamp(min=0).to(pixels), vectors.flip(2).to(pixels)
    gaps = squares[:, None, :count] - squares[:, :, None]
    shares = pixels @ vectors
    turn = vectors @ (reciprocal(gaps) * (shares.mT @ shares[:, :, :count]))
    return vectors[:, :, :count] + turn - turn.detach(), F.normalize(squares[:, None, :count].sqrt(), dim=2)


def reciprocal(gaps: Tensor) -> Tensor:
    """1 / gap of wide gaps, 0 at none."""
    return gaps / (gaps.square() + NARROW**2)
