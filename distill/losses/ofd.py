"""Heo et al.: A Comprehensive Overhaul of Feature Distillation. arXiv:1904.01866, equations 2 to 5.

As in the authors' code: the sum over all values, divided by the batch only (hence weights near 1e-3), each earlier tap
at half the weight of the next. Departs from it: the teacher stays in eval mode, unless the stage says
``teacher_bn: train``.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import connector
from distill.losses._pairs import paired, sum_of_halved
from distill.models.feature_maps import pool_to_smaller, widened

RARE = 0.001
"""Below this share of negative values their mean is taken as three standard deviations below zero."""


@loss("ofd")
class Overhaul(nn.Module):
    """The student should reach the teacher's positive values, and stay below where those are negative.

    Tap pre-activations. 1x1 convolutions with batch norm connect the student's channels to the teacher's. Maps of
    different sizes are compared at the smaller one's.

    Args:
        student_shapes: one (batch, channels, height, width) for each tap, early to late.
        teacher_shapes: as many.
        teacher_model: its batch norms tell how its values at the taps are distributed.
        teacher_paths: of its taps.

    Raises:
        ValueError: unequal numbers of taps, or no batch norm before one of the teacher's.
    """

    def __init__(
        self,
        student_shapes: list[tuple[int, ...]],
        teacher_shapes: list[tuple[int, ...]],
        teacher_model: nn.Module,
        teacher_paths: list[str],
    ) -> None:
        super().__init__()
        pairs = paired("ofd", student_shapes, teacher_shapes)
        self.connectors = nn.ModuleList(connector(student[1], teacher[1]) for student, teacher in pairs)
        for i, (path, (_, teacher)) in enumerate(zip(teacher_paths, pairs)):
            margin = mean_below_zero(batch_norm_before(path, teacher_model, channels=teacher[1]))
            self.register_buffer(f"margin{i}", margin[:, None, None])

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Float[Tensor, ""]:
        pairs = [pool_to_smaller(s, t) for s, t in zip(student, teacher)]
        return sum_of_halved(
            [
                partial_l2(widened(connect(s)), widened(t).maximum(self.get_buffer(f"margin{i}")))
                for i, (connect, (s, t)) in enumerate(zip(self.connectors, pairs))
            ]
        )


def partial_l2(
    student: Float[Tensor, "batch channels height width"], teacher: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, ""]:
    """Squared differences but where the student is below a negative value of the teacher; sum over all, per image."""
    counts = (student > teacher) | (teacher > 0)
    return ((student - teacher).square() * counts).sum() / len(student)


def mean_below_zero(norm: nn.BatchNorm2d) -> Float[Tensor, " channels"]:
    """The expected value of a batch norm's output where that is negative: its output is about normal."""
    mean, deviation = norm.bias.detach().double(), norm.weight.detach().double().abs()
    offset = mean / deviation
    negative = torch.special.ndtr(-offset)
    density = torch.exp(-offset.square() / 2) / math.sqrt(2 * math.pi)
    return torch.where(negative > RARE, mean - deviation * density / negative, -3 * deviation).float()


def batch_norm_before(path: str, model: nn.Module, *, channels: int) -> nn.BatchNorm2d:
    """The last batch norm of that many channels in or before the module at ``path``, in the order of registration.

    Raises:
        ValueError: there is none.
    """
    modules = list(model.named_modules())
    end = max((i for i, (name, _) in enumerate(modules) if f"{name}.".startswith(f"{path}.")), default=-1)
    for _, module in reversed(modules[: end + 1]):
        if isinstance(module, nn.BatchNorm2d) and module.affine and module.num_features == channels:
            return module
    raise ValueError(
        f"ofd finds no BatchNorm2d of {channels} channels in or before the teacher's '{path}', from which to tell how "
        "its values are distributed; tap a pre-activation behind a batch norm, or use fitnet"
    )
