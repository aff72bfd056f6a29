"""One label per image."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from distill.tasks import task


@task("classification")
class Classification:
    """Cross-entropy, judged by top-1 accuracy."""

    monitor = "val/accuracy"
    mode = "max"

    def __init__(self, num_classes: int, *, label_smoothing: float = 0.0) -> None:
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing

    def loss(self, output: Float[Tensor, "batch classes"], labels: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
        return F.cross_entropy(output, labels, label_smoothing=self.label_smoothing)

    def metrics(self) -> MetricCollection:
        """Fractions of 1; ``accuracy`` counts images, not classes."""
        return MetricCollection({"accuracy": MulticlassAccuracy(self.num_classes, average="micro")})

    def confusion(self) -> MulticlassConfusionMatrix:
        """Counts of (true class, predicted class)."""
        return MulticlassConfusionMatrix(self.num_classes)
