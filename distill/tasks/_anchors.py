"""Default boxes: fixed boxes at every cell of a detector's maps, and boxes encoded as offsets from them.

Liu et al.: SSD: Single Shot MultiBox Detector. arXiv:1512.02325, section 2.2, "Choosing scales and aspect ratios".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from distill.errors import RecipeError

CENTRE, SIZE = 0.1, 0.2
"""Offsets of centre and size are divided by these, SSD's "variances"."""
LARGEST = 62.5
"""Pixels per pixel of an anchor that a side decodes to at most, as in torchvision: exp of more than 4 is no box."""
REACH = 4.0
"""Offsets that bins reach: boxes of at least half an anchor's overlap are less than that from it."""
LEAST, MOST = 0.2, 0.9
"""Scales of the first and the last map without others, equation 4."""

Centres = Literal["cells", "strides", "corners"]
Boxes = Float[Tensor, "*boxes 4"]
Anchors = Float[Tensor, "... 4"]


@dataclass(frozen=True)
class AnchorSettings:
    """What a recipe says about anchors; see `distill.tasks.detection.Detection`."""

    strides: Sequence[int]
    scales: Sequence[Sequence[float]]
    ratios: Sequence[Sequence[float]]
    ratios_of_all: bool
    centres: Centres

    def __post_init__(self) -> None:
        maps = len(self.strides)
        if not maps:
            raise RecipeError(
                "task.strides is empty: give the stride of each of the network's maps, for example [8, 16]"
            )
        for name in ("scales", "ratios"):
            if len(getattr(self, name)) not in (0, 1, maps):
                raise RecipeError(
                    f"task.{name} has {len(getattr(self, name))} entries for {maps} maps: one a map, or one"
                )
        if any(not scales for scales in self.scales):
            raise RecipeError("task.scales: a map without a scale has no anchors; leave its stride out")

    def grid(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """(height, width) of each map in cells."""
        height, width = image_size
        return [(-(-height // stride), -(-width // stride)) for stride in self.strides]

    def shapes(self) -> list[list[tuple[float, float]]]:
        """For each map, (width, height) of its anchors, as parts of the image's shorter side."""
        scales, ratios = self.scales or default_scales(len(self.strides)), self.ratios or [(2, 1 / 2)]
        maps = len(self.strides)
        return [self._of_map(*both) for both in zip(_for_each(scales, maps), _for_each(ratios, maps), strict=True)]

    def _of_map(self, scales: Sequence[float], ratios: Sequence[float]) -> list[tuple[float, float]]:
        stretched = scales if self.ratios_of_all else scales[:1]
        others = [(scale * sqrt(ratio), scale / sqrt(ratio)) for scale in stretched for ratio in ratios]
        return [(scale, scale) for scale in scales] + others

    def counts(self) -> list[int]:
        """Anchors in a cell of each map."""
        return [len(shapes) for shapes in self.shapes()]

    def boxes(self, image_size: tuple[int, int]) -> Float[Tensor, "anchors 4"]:
        """All anchors as centre (x, y), width and height in pixels: map by map, row by row, cell by cell."""
        side = min(image_size)
        found = []
        for stride, cells, shapes in zip(self.strides, self.grid(image_size), self.shapes(), strict=True):
            y, x = (self._centres(number, stride, pixels) for number, pixels in zip(cells, image_size, strict=True))
            centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)  # (rows, columns, 2)
            sizes = torch.tensor(shapes) * side
            pairs = [centres[:, :, None].expand(-1, -1, len(sizes), -1), sizes.expand(*cells, -1, -1)]
            found.append(torch.cat(pairs, dim=-1).reshape(-1, 4))
        return torch.cat(found)

    def _centres(self, cells: int, stride: int, pixels: int) -> Float[Tensor, " cells"]:
        numbers = torch.arange(cells, dtype=torch.float32)
        match self.centres:
            case "cells":
                return (numbers + 0.5) * pixels / cells
            case "strides":
                return (numbers + 0.5) * stride
        return numbers * stride


def default_scales(maps: int) -> list[list[float]]:
    """Evenly from 0.2 to 0.9, and for each map a second one between its own and the next, equation 4."""
    step = (MOST - LEAST) / max(maps - 1, 1)
    own = [LEAST + step * number for number in range(maps + 1)]
    return [[scale, sqrt(scale * after)] for scale, after in pairwise(own)]


def encode(boxes: Boxes, anchors: Anchors) -> Boxes:
    """Offsets of boxes (left, top, right, bottom) from anchors (centre, width, height), equation 2."""
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    offset = (centre - anchors[..., :2]) / anchors[..., 2:] / CENTRE
    return torch.cat([offset, (size / anchors[..., 2:]).log() / SIZE], dim=-1)


def decode(offsets: Boxes, anchors: Anchors) -> Boxes:
    """The inverse of `encode`."""
    centre = anchors[..., :2] + offsets[..., :2] * CENTRE * anchors[..., 2:]
    half = anchors[..., 2:] * (offsets[..., 2:] * SIZE).clamp(max=log(LARGEST)).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def bin_values(bins: int) -> Float[Tensor, " bins"]:
    """The offsets that bins stand for."""
    return torch.linspace(-REACH, REACH, bins)


def expected(logits: Float[Tensor, "*boxes bins"]) -> Float[Tensor, "*boxes"]:
    """The mean of the distribution over bins: Li et al., Generalized Focal Loss, arXiv:2006.04388, equation 5."""
    return logits.softmax(-1) @ bin_values(logits.shape[-1]).to(logits)


def distribution_focal(logits: Float[Tensor, "*boxes bins"], offsets: Float[Tensor, "*boxes"]) -> Float[Tensor, ""]:
    """Cross-entropy with the two bins next to each offset, by their nearness; sum. The same paper, equation 6."""
    place = ((offsets / REACH + 1) / 2).clamp(0, 1) * (logits.shape[-1] - 1)
    below = place.long().clamp(max=logits.shape[-1] - 2)
    log_p = logits.log_softmax(-1)
    near, far = (log_p.gather(-1, (below + step)[..., None])[..., 0] for step in (0, 1))
    return -((below + 1 - place) * near + (place - below) * far).sum()


def _for_each(entries: Sequence[Sequence[float]], maps: int) -> list[Sequence[float]]:
    return [entries[0]] * maps if len(entries) == 1 else list(entries)
