"""COCO's average precision: Lin et al., Microsoft COCO: Common Objects in Context, arXiv:1405.0312.

Definition at cocodataset.org/#detection-eval: over overlaps of 0.5 to 0.95, 100 detections an image.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision

NAMES = {"map": "map", "map_50": "ap50", "map_75": "ap75"}
"""Of torchmetrics' numbers: those that are kept, and what they are called here."""

Labelled = list[dict[str, Tensor]]


class _Gathered(MeanAveragePrecision):
    """Processes may hold different numbers of images: torchmetrics gathers tensor by tensor, and would wait forever."""

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        for name in self._reductions:
            parts: list[Any] = [None] * dist.get_world_size(process_group)
            dist.all_gather_object(parts, getattr(self, name), process_group)
            setattr(self, name, [item for part in parts for item in part])


class AveragePrecision(_Gathered):
    """The mean over classes, as fractions of 1: "map" over all overlaps, "ap50" and "ap75" at 0.5 and 0.75."""

    def __init__(self) -> None:
        super().__init__(backend="faster_coco_eval")

    def compute(self) -> dict[str, Tensor]:
        found = super().compute()
        return {ours: found[name].clamp(min=0) for name, ours in NAMES.items()}  # -1: a split without objects


class ByClass(Metric):
    """The average precision of each class: (classes,), 0 where there is no object of it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.inner = _Gathered(backend="faster_coco_eval", class_metrics=True)

    def update(self, found: Labelled, labels: Labelled) -> None:
        self.inner.update(found, labels)

    def compute(self) -> Tensor:
        computed: Any = self.inner.compute()
        values = torch.zeros(self.num_classes)
        values[computed["classes"].long().view(-1)] = computed["map_per_class"].view(-1).clamp(min=0)
        return values
