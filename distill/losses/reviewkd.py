"""Chen et al.: Distilling Knowledge via Knowledge Review. arXiv:2104.09044, sections 3.3 and 3.4.

As in the authors' code: the deepest map is not fused, deeper maps are enlarged by repeating pixels, and what is
compared has the teacher's size. The authors tap maps before their last ReLU, and their average as the deepest; their
weight rises over 20 epochs (``warmup_epochs``).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._pairs import paired
from distill.models.feature_maps import as_map, widened
from distill.registry.ranges import Count

Shape = tuple[int, ...]
Map = Float[Tensor, "batch _ _ _"]
LEVELS = (4, 2, 1)
"""Height and width of the pooled maps that are compared beside the whole."""


@loss("reviewkd")
class KnowledgeReview(nn.Module):
    """Each map of the student, fused with all deeper ones, should be the teacher's at that depth.

    Taps of both networks are as many, early to late; (batch, features) vectors are 1x1 maps.

    Args:
        student_shapes: of the student's taps.
        teacher_shapes: of the teacher's.
        channels: in which maps are fused; no more than the student's deepest has.

    Raises:
        ValueError: the networks have different numbers of taps.
    """

    def __init__(self, student_shapes: list[Shape], teacher_shapes: list[Shape], *, channels: Count = 512) -> None:
        super().__init__()
        inner = min(channels, student_shapes[-1][1])
        pairs = paired("reviewkd", student_shapes, teacher_shapes)
        last = len(pairs) - 1
        self.fusions = nn.ModuleList(
            Fusion(s[1], inner, t[1], fuses=depth < last) for depth, (s, t) in enumerate(pairs)
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Float[Tensor, ""]:
        fused, total = None, student[0].new_zeros(())
        for s, t, fusion in zip(reversed(student), reversed(teacher), reversed(self.fusions), strict=True):
            fused, output = fusion(as_map(s), fused, as_map(t).shape[2:])
            total = total + hierarchical_context(output, as_map(t))
        return total


class Fusion(nn.Module):
    """A map of the student and all deeper ones, as one map of ``inner`` channels and one of the teacher's."""

    def __init__(self, inputs: int, inner: int, outputs: int, *, fuses: bool) -> None:
        super().__init__()
        self.reduce = convolution(inputs, inner, kernel_size=1)
        self.expand = convolution(inner, outputs, kernel_size=3)
        self.attend = nn.Conv2d(2 * inner, 2, kernel_size=1) if fuses else None

    def forward(self, features: Map, deeper: Map | None, size: torch.Size) -> tuple[Map, Map]:
        fused = self.reduce(features)
        if self.attend is not None and deeper is not None:
            size_here = fused.shape[2:]
            # The part that reads deeper maps does so before they are enlarged: fewer pixels, and nothing to join.
            mine, deep = self.attend.weight.chunk(2, dim=1)
            scores = F.conv2d(fused, mine, self.attend.bias) + F.interpolate(F.conv2d(deeper, deep), size_here)
            own, deeper_share = scores.sigmoid().split(1, dim=1)
            fused = fused * own + F.interpolate(deeper, size_here) * deeper_share
        if fused.shape[2:] != size:
            fused = F.interpolate(fused, size)
        return fused, self.expand(fused)


def convolution(inputs: int, outputs: int, kernel_size: int) -> nn.Sequential:
    """A convolution that keeps the size, and batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def hierarchical_context(
    student: Float[Tensor, "batch channels height width"], teacher: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, ""]:
    """Mean squared difference of the maps, and of both pooled to each smaller level, which counts half of the last."""
    difference = widened(student) - widened(teacher)
    values = [difference.square().mean()]
    # Pooling is linear: the pooled maps differ by the pooled difference.
    values += [F.adaptive_avg_pool2d(difference, level).square().mean() for level in LEVELS if level < student.shape[2]]
    weights = [0.5**depth for depth in range(len(values))]
    return torch.stack([weight * value for weight, value in zip(weights, values)]).sum() / sum(weights)
