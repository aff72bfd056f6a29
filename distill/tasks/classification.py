"""One class per image."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from distill.batch import Batch
from distill.data.info import DataInfo
from distill.errors import RecipeError
from distill.registry.ranges import BelowOne, Count
from distill.tasks import Prediction, Task, task
from distill.tasks._captions import BAD, GOOD, NEUTRAL, captioned
from distill.tasks._classes import most_probable, top1_agreement
from distill.tasks._confusions import ConfusedPairs

TOP_5_FROM = 21
"""Classes from which on a class among the five most probable ones says something."""
MATRIX_TO = 200
"""Classes up to which a confusion matrix can be looked at; of more, the most confused pairs are listed."""


@task("classification")
class Classification(Task):
    """Cross-entropy of logits, measured by top-1 accuracy, and by top-k accuracy.

    Args:
        info: of the data set, which has classes.
        label_smoothing: the part of the target spread over all classes, from 0 to 1. Szegedy et al.,
            arXiv:1512.00567, section 7.
        top_k: classes that the second metric counts as predicted, the most probable ones; by default 5 from 21 classes
            on, and of fewer no second metric.

    Raises:
        RecipeError: the data has no classes, or no more than top_k, or smoothing is out of range.
    """

    monitor = "accuracy"
    output_name = "logits"
    agreement_name = "top-1 agreement"
    mixes = "labels"
    label_kind = "classes"
    batch_sizes = (1, 32)

    def __init__(self, info: DataInfo, *, label_smoothing: BelowOne = 0.0, top_k: Count | None = None) -> None:
        super().__init__(info)
        if not info.num_classes:
            raise RecipeError("classification needs a data set with class_names, but this one has none")
        if not 0 <= label_smoothing < 1:
            raise RecipeError(f"task.label_smoothing is {label_smoothing}, but is from 0 to below 1")
        if top_k is not None and not 1 < top_k < info.num_classes:
            raise RecipeError(f"task.top_k is {top_k}, but is above 1 and below the {info.num_classes} classes")
        self.label_smoothing = label_smoothing
        self.top_k = top_k or (5 if info.num_classes >= TOP_5_FROM else None)
        self.units = {"accuracy": "%"} | ({f"top{self.top_k}_accuracy": "%"} if self.top_k else {})

    def network_arguments(self) -> dict[str, Any]:
        return {"num_classes": self.info.num_classes}

    def check(self, output: Any, batch: Batch) -> None:
        super().check(output, batch)
        found, needed = tuple(output.shape[1:]), self.info.num_classes
        if found != (needed,):
            what = f"{found[0]} classes" if len(found) == 1 else f"a map of {'x'.join(map(str, found))}"
            raise RecipeError(f"outputs {what}, but the data has {needed} classes")

    def loss(self, output: Float[Tensor, "batch classes"], batch: Batch) -> Float[Tensor, ""]:
        return F.cross_entropy(output, batch.labels, label_smoothing=self.label_smoothing)

    def metrics(self) -> MetricCollection:
        """Fractions of 1, of images, not of classes."""
        classes = self.info.num_classes
        metrics: dict[str, Metric] = {"accuracy": MulticlassAccuracy(classes, average="micro")}
        if self.top_k:
            metrics[f"top{self.top_k}_accuracy"] = MulticlassAccuracy(classes, average="micro", top_k=self.top_k)
        return MetricCollection(metrics)  # type: ignore[arg-type]

    def figures(self) -> dict[str, Metric]:
        """``confusion[true class, predicted class]``, in images; of very many classes the pairs most often confused."""
        if self.info.num_classes > MATRIX_TO:
            return {"most_confused": ConfusedPairs(self.info.class_names)}
        return {"confusion": MulticlassConfusionMatrix(self.info.num_classes)}

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """The part of the images for which the most probable class is the same."""
        return top1_agreement(output, reference)

    def constant(self, labels: Int[Tensor, " samples"] | None) -> Float[Tensor, " classes"] | None:
        """The most frequent class."""
        if labels is None:
            return None
        counts = torch.bincount(labels, minlength=self.info.num_classes)
        return F.one_hot(counts.argmax(), self.info.num_classes).float()

    def predict(self, output: Float[Tensor, "batch classes"]) -> list[Prediction]:
        """``{"class": "cat", "probability": 0.9, "top": [...]}``: the most probable class, and the next ones."""
        return most_probable(output, self.info.class_names.__getitem__)

    def truth(self, labels: Int[Tensor, " batch"]) -> list[Prediction]:
        return [{"class": self.info.class_names[label]} for label in labels.tolist()]

    def draw(self, image: Image.Image, prediction: Prediction, truth: Prediction | None = None) -> Image.Image:
        """The image above its predicted class; a wrong one in red, above the true one."""
        text = f"{prediction['class']} ({100 * prediction['probability']:.0f} %)"
        if truth is None:
            return captioned(image, (text, NEUTRAL))
        if truth["class"] == prediction["class"]:
            return captioned(image, (text, GOOD), ("", NEUTRAL))
        return captioned(image, (text, BAD), (f"is {truth['class']}", NEUTRAL))
