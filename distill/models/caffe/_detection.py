"""Liu et al.: SSD: Single Shot MultiBox Detector. arXiv:1512.02325: default boxes (section 2.2), and detections from
what a network predicts for each of them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import nms

CODES = ("CORNER", "CENTER_SIZE", "CORNER_SIZE")


class PriorBox(nn.Module):
    """The default boxes of one feature map: (1, 2, boxes * 4), corners as parts of the image and their variances."""

    def __init__(
        self,
        min_sizes: Sequence[float],
        max_sizes: Sequence[float] = (),
        ratios: Sequence[float] = (),
        variances: Sequence[float] = (0.1,),
        steps: Sequence[float] = (),
        image: Sequence[int] = (),
        clip: bool = False,
        offset: float = 0.5,
    ) -> None:
        super().__init__()
        if len(variances) not in (1, 4) or (max_sizes and len(max_sizes) != len(min_sizes)):
            raise ValueError("PriorBox has 1 or 4 variances, and as many maximum sizes as minimum sizes, or none")
        self.min_sizes, self.max_sizes, self.ratios = tuple(min_sizes), tuple(max_sizes), tuple(ratios)
        self.variances, self.steps, self.image = tuple(variances), tuple(steps), tuple(image)
        self.clip, self.offset = clip, offset

    def sizes(self) -> list[tuple[float, float]]:
        """Width and height of the boxes at each position, in pixels of the image."""
        found = []
        for position, small in enumerate(self.min_sizes):
            found.append((small, small))
            if self.max_sizes:
                side = (small * self.max_sizes[position]) ** 0.5
                found.append((side, side))
            found += [(small * ratio**0.5, small / ratio**0.5) for ratio in self.ratios]
        return found

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        rows, columns = features.shape[2:]
        height, width = self.image or images.shape[2:]
        step_y, step_x = self.steps or (height / rows, width / columns)
        y = (torch.arange(rows, device=features.device) + self.offset) * step_y
        x = (torch.arange(columns, device=features.device) + self.offset) * step_x
        centers = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], 2)
        half = torch.tensor(self.sizes(), device=features.device) / 2
        corners = torch.cat([centers[:, :, None] - half, centers[:, :, None] + half], 3)
        boxes = (corners / torch.tensor([width, height] * 2, device=features.device)).flatten()
        boxes = boxes.clamp(0, 1) if self.clip else boxes
        variances = torch.tensor(self.variances, device=features.device).expand(len(boxes) // 4, 4).flatten()
        return torch.stack([boxes, variances])[None]


class DetectionOutput(nn.Module):
    """Boxes of each class without those that overlap better ones: (1, 1, detections, 7), where a detection is the image
    it is in, class, score, left, top, right and bottom; none at all is (1, 1, 0, 7)."""

    def __init__(
        self,
        num_classes: int,
        share_location: bool = True,
        background: int = 0,
        overlap: float = 0.3,
        candidates: int = -1,
        keep: int = -1,
        code: str = "CORNER",
        variance_encoded: bool = False,
        confidence: float | None = None,
    ) -> None:
        super().__init__()
        if code not in CODES:
            raise ValueError(f"boxes are coded as {', '.join(CODES)}, not {code}")
        self.num_classes, self.share_location, self.background = num_classes, share_location, background
        self.overlap, self.candidates, self.keep = overlap, candidates, keep
        self.code, self.variance_encoded, self.confidence = code, variance_encoded, confidence

    def forward(self, locations: Tensor, confidences: Tensor, priors: Tensor, *images: Tensor) -> Tensor:
        boxes = self.decode(locations, priors)
        scores = confidences.reshape(len(boxes), -1, self.num_classes)
        return torch.cat([self._image(i, boxes[i], scores[i]) for i in range(len(boxes))])[None, None]

    def decode(self, locations: Tensor, priors: Tensor) -> Tensor:
        """Corners of all boxes: (batch, boxes, 1 or classes, 4)."""
        prior, variance = priors.reshape(2, -1, 1, 4)
        shifts = locations.reshape(len(locations), len(prior), -1, 4)
        shifts = shifts if self.variance_encoded else shifts * variance
        low, high = prior[..., :2], prior[..., 2:]
        if self.code == "CORNER":
            return prior + shifts
        if self.code == "CORNER_SIZE":
            return prior + shifts * (high - low).repeat(1, 1, 2)
        center = shifts[..., :2] * (high - low) + (low + high) / 2
        half = shifts[..., 2:].exp() * (high - low) / 2
        return torch.cat([center - half, center + half], -1)

    def _image(self, index: int, boxes: Tensor, scores: Tensor) -> Tensor:
        found = []
        for label in range(self.num_classes):
            if label == self.background:
                continue
            score, box = scores[:, label], boxes[:, 0 if self.share_location else label]
            order = score.argsort(descending=True, stable=True)
            if self.confidence is not None:
                order = order[score[order] > self.confidence]
            order = order[: self.candidates] if self.candidates >= 0 else order
            best = order[nms(box[order], score[order], self.overlap)]
            ends = torch.tensor([index, label], dtype=box.dtype, device=box.device).expand(len(best), 2)
            found.append(torch.cat([ends, score[best, None], box[best]], 1))
        rows = torch.cat(found)
        if 0 <= self.keep < len(rows):
            rows = rows[rows[:, 2].topk(self.keep).indices.sort().values]
        return rows
