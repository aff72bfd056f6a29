"""One class per pixel."""

from typing import Any

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from distill.batch import IGNORED, Batch
from distill.data.info import DataInfo
from distill.errors import RecipeError
from distill.tasks import Prediction, Task, task
from distill.tasks._captions import NEUTRAL, captioned
from distill.tasks._masks import colour_of, mask_from_runs, mask_runs, overlaid

NAMED = 3
"""Classes that are named under a picture, those of the largest area first."""
Logits = Float[Tensor, "batch classes _ _"]


@task("segmentation")
class Segmentation(Task):
    """Cross-entropy of every pixel, measured by the mean over classes of intersection over union.

    Classes that are neither there nor predicted are left out of the mean. Outputs are (batch, classes, height, width);
    of another size than the labels, they are enlarged bilinearly.

    Args:
        info: of the data set, which has classes.

    Raises:
        RecipeError: the data has no classes.
    """

    monitor = "mean_iou"
    units = {"mean_iou": "%", "pixel_accuracy": "%", "class_iou": "%"}
    output_name = "logits"
    agreement_name = "agreement of pixels"
    label_kind = "masks"

    def __init__(self, info: DataInfo) -> None:
        super().__init__(info)
        if not info.num_classes:
            raise RecipeError("segmentation needs a data set with class_names, but this one has none")

    def network_arguments(self) -> dict[str, Any]:
        return {"num_classes": self.info.num_classes}

    def check(self, output: Any, batch: Batch) -> None:
        super().check(output, batch)
        found, needed = tuple(output.shape[1:]), self.info.num_classes
        if len(found) != 3:
            raise RecipeError(f"outputs {found} for each image, but segmentation needs (classes, height, width)")
        if found[0] != needed:
            raise RecipeError(f"outputs {found[0]} classes for each pixel, but the data has {needed} classes")

    def loss(self, output: Logits, batch: Batch) -> Float[Tensor, ""]:
        """Mean over the pixels that have a class; 0 where none has."""
        total = F.cross_entropy(_fitted(output, batch.labels), batch.labels, ignore_index=IGNORED, reduction="sum")
        return total / (batch.labels != IGNORED).sum().clamp(min=1)

    def metrics(self) -> MetricCollection:
        """Fractions of 1."""
        classes = self.info.num_classes
        return MetricCollection(
            {
                "mean_iou": MulticlassJaccardIndex(classes, ignore_index=IGNORED),
                "pixel_accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORED),
            }
        )

    def update(self, metrics: MetricCollection | Metric, output: Logits, batch: Batch) -> None:
        metrics.update(_fitted(output, batch.labels).argmax(1), batch.labels)

    def figures(self) -> dict[str, Metric]:
        """Intersection over union of each class, and ``confusion[true class, predicted class]`` in pixels."""
        classes = self.info.num_classes
        return {
            "class_iou": MulticlassJaccardIndex(classes, average="none", ignore_index=IGNORED),
            "confusion": MulticlassConfusionMatrix(classes, ignore_index=IGNORED),
        }

    def agreement(self, output: Logits, reference: Logits) -> float:
        """The part of the pixels for which the most probable class is the same."""
        return float((output.argmax(1) == reference.argmax(1)).float().mean())

    def predict(self, output: Logits) -> list[Prediction]:
        """``{"areas": {"cat": 0.3, ...}, "size": [height, width], "runs": [[class, pixels], ...]}``.

        Areas are parts of the picture, the largest first; runs are the mask, row after row.
        """
        return [self._described(mask) for mask in output.detach().argmax(1).cpu().numpy()]

    def truth(self, labels: Int[Tensor, "batch height width"]) -> list[Prediction]:
        return [self._described(mask) for mask in labels.cpu().numpy()]

    def draw(self, image: Image.Image, prediction: Prediction, truth: Prediction | None = None) -> Image.Image:
        """The predicted mask over the image; beside it the true one, if known."""
        image = captioned(image)
        hidden = 0 if self.info.class_names[0] == "background" else None
        masks = {"predicted": prediction} | ({"true": truth} if truth else {})
        page = Image.new("RGB", (image.width * len(masks), image.height), "white")
        for column, mask in enumerate(masks.values()):
            page.paste(overlaid(image, mask_from_runs(mask), hidden), (column * image.width, 0))
        shown = [name for number, name in enumerate(self.info.class_names) if number != hidden]
        largest = [name for name in prediction["areas"] if name in shown][:NAMED]
        lines = [(f"{name} {prediction['areas'][name]:.0%}", self._colour(name)) for name in largest]
        return captioned(page, (" | ".join(masks), NEUTRAL), *lines, *[("", NEUTRAL)] * (NAMED - len(lines)))

    def _described(self, mask: np.ndarray) -> Prediction:
        numbers, counts = np.unique(mask[mask != IGNORED], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        areas = {self.info.class_names[numbers[i]]: float(counts[i] / mask.size) for i in order}
        return {"areas": areas, **mask_runs(mask)}

    def _colour(self, name: str) -> str:
        return "#{:02x}{:02x}{:02x}".format(*colour_of(self.info.class_names.index(name)))


def _fitted(output: Logits, labels: Int[Tensor, "batch _ _"]) -> Logits:
    """Logits in the size of the labels."""
    if output.shape[2:] == labels.shape[1:]:
        return output
    return F.interpolate(output, labels.shape[1:], mode="bilinear")
