"""Yang et al.: Focal and Global Knowledge Distillation for Detectors. arXiv:2111.11837, equations 2 to 12.

As in the authors' code: sums over values divided by the batch, a box covers every cell that it touches, and attention
weights enter the difference by their roots, which squares to the paper's. Departs from the paper: the larger map is
pooled to the smaller one.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import adapter
from distill.models.feature_maps import pool_to_smaller, widened
from distill.registry.ranges import NonNegative, Temperature

Map = Float[Tensor, "batch channels height width"]


@loss("fgd")
class FocalAndGlobal(nn.Module):
    """Objects and background apart, where and in which channels the teacher attends, and how pixels relate.

    Labels are those of detection: for each image a dict with "boxes" (n, 4) in pixels of the inputs.

    Args:
        student_shape: (batch, channels, height, width).
        teacher_shape: (batch, channels, height, width).
        temperature: of the attention over pixels and over channels.
        alpha: weight of the objects' pixels, each object with the same total.
        beta: weight of the background's.
        gamma: weight of the attention itself.
        relation: weight of the global relation, the paper's lambda.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        *,
        temperature: Temperature = 0.5,
        alpha: NonNegative = 1e-3,
        beta: NonNegative = 5e-4,
        gamma: NonNegative = 1e-3,
        relation: NonNegative = 5e-6,
    ) -> None:
        super().__init__()
        self.temperature, self.alpha, self.beta, self.gamma = temperature, alpha, beta, gamma
        self.relation = relation
        channels = teacher_shape[1]
        self.adapter = adapter(student_shape[1], channels)
        self.student_context, self.teacher_context = GlobalContext(channels), GlobalContext(channels)

    def forward(
        self,
        student: Float[Tensor, "batch channels_s height_s width_s"],
        teacher: Float[Tensor, "batch channels_t height_t width_t"],
        labels: list[dict[str, Tensor]],
        inputs: Float[Tensor, "batch colours rows columns"],
    ) -> Float[Tensor, ""]:
        student, teacher = pool_to_smaller(self.adapter(student), teacher)
        student, teacher = widened(student), widened(teacher)
        objects, background = masks(labels, teacher, inputs)
        own, where = (self._attention(features) for features in (student, teacher))
        squares = (student - teacher).square() * where[0] * where[1]
        focal = self.alpha * (objects * squares).sum() + self.beta * (background * squares).sum()
        attention = sum((a - b).abs().sum() for a, b in zip(own, where, strict=True))
        related = self.student_context(student) - self.teacher_context(teacher)
        total = focal + self.gamma * attention + self.relation * related.square().sum()
        return cast(Tensor, total) / len(student)

    def _attention(self, features: Map) -> tuple[Tensor, Tensor]:
        """(batch, 1, height, width) and (batch, channels, 1, 1), of mean 1 each: equations 2 to 5."""
        batch, channels, height, width = features.shape
        pixels = features.abs().mean(1).flatten(1) / self.temperature
        maps = features.abs().mean((2, 3)) / self.temperature
        where = height * width * pixels.softmax(1).view(batch, 1, height, width)
        return where, channels * maps.softmax(1)[..., None, None]


class GlobalContext(nn.Module):
    """Cao et al., GCNet, arXiv:1904.11492: a weighted sum over pixels, transformed and added to each of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.weigh = nn.Conv2d(channels, 1, 1)
        self.reduce, self.norm, self.expand = (
            nn.Linear(channels, inner),
            nn.LayerNorm(inner),
            nn.Linear(inner, channels),
        )
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, features: Map) -> Map:
        weights = self.weigh(features).flatten(2).softmax(2)  # (batch, 1, pixels)
        context = (features.flatten(2) * weights).sum(2)
        return features + self.expand(F.relu(self.norm(self.reduce(context))))[..., None, None]


def masks(
    labels: list[dict[str, Tensor]], features: Map, inputs: Float[Tensor, "batch colours rows columns"]
) -> tuple[Float[Tensor, "batch 1 height width"], Float[Tensor, "batch 1 height width"]]:
    """Of objects, each pixel 1 / the pixels of its box, of the smallest one where several overlap; and of background,
    each pixel 1 / its pixels: equations 6 and 7. Crowds are neither.

    Args:
        labels: of each image "boxes", left, top, right, bottom in pixels of the inputs, and "iscrowd", 1 for a crowd.
        features: the map that the masks are for.
        inputs: the images.
    """
    height, width = features.shape[2:]
    across, down = width / inputs.shape[3], height / inputs.shape[2]
    shares, empty = [], []
    for label in labels:
        left, top, right, bottom = label["boxes"].to(features).T
        rows = covered(top * down, bottom * down, height)
        columns = covered(left * across, right * across, width)
        inside = rows[:, :, None] * columns[:, None]
        nothing = inside.new_zeros(1, height, width)
        empty.append((torch.cat([inside, nothing]).amax(0) == 0).to(inside))
        inside = inside * (label["iscrowd"] == 0)[:, None, None]  # not selected: a GPU would have to wait for the count
        inside = inside / inside.sum((1, 2), keepdim=True).clamp(min=1)
        shares.append(torch.cat([inside, nothing]).amax(0))
    background = torch.stack(empty)[:, None]
    return torch.stack(shares)[:, None], background / background.sum((2, 3), keepdim=True).clamp(min=1)


def covered(
    start: Float[Tensor, " boxes"], end: Float[Tensor, " boxes"], length: int
) -> Float[Tensor, " boxes length"]:
    """Which cells of a row an interval touches, at least the one in which it begins."""
    cells, first = torch.arange(length, device=start.device), start.floor().clamp(min=0)
    last = torch.maximum(end.ceil(), first + 1)
    return ((cells >= first[:, None]) & (cells < last[:, None])).to(start)
