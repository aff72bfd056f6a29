"""A finished network as what its compressed forms are compared with: all it takes is images.

Hooks that ask for a loss get, where there are no labels, a random direction of the output for each image: the mean
square of its derivatives is that of the output's own, as in Martens & Grosse, arXiv:1503.05671, section 3.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection

from distill.batch import Batch
from distill.data.image_inputs import ImageInputs
from distill.data.info import DataInfo
from distill.errors import RecipeError
from distill.measure.change import kept_detections, relative_change, same_class
from distill.models.caffe import CaffeNet
from distill.tasks import Task

BATCH = 16
CALIBRATED = 256
"""Images that hooks look at, at most."""
FEW = 8
"""From so many images on, every fourth is kept from the hooks: changes are measured on those."""


class Reference(Task):
    """The task of a network that is its own reference.

    Args:
        info: what images the network reads.
        model: as it is before compression.
        inputs: images, with labels or without.

    Raises:
        RecipeError: images or labels do not fit the network.
    """

    monitor: ClassVar[str] = "change"
    mode = "min"

    def __init__(self, info: DataInfo, model: nn.Module, inputs: ImageInputs) -> None:
        super().__init__(info)
        images, labels = inputs
        apart = torch.arange(len(images)) % 4 == 3 if len(images) >= FEW else torch.ones(len(images), dtype=torch.bool)
        self.images = images[apart]
        self.labels = None if labels is None else labels[apart]
        self.outputs = outputs_of(model, self.images)
        self.classes = self.outputs.dim() == 2 and not (isinstance(model, CaffeNet) and model.several)
        if labels is not None and not (self.classes and int(labels.max()) < self.outputs.shape[1]):
            shape, most = list(self.outputs.shape[1:]), int(labels.max())
            raise RecipeError(f"labels up to {most} do not fit a network with outputs of shape {shape}")
        self.detections = _detections(model, self.images)
        self.probabilities = _ends_in_softmax(model)
        seen = torch.nonzero(~apart if len(images) >= FEW else apart).flatten()[:CALIBRATED]
        self.calibration = [self._batch(part, images, labels) for part in seen.split(BATCH)]

    def _batch(self, which: Tensor, images: Tensor, labels: Tensor | None) -> Batch:
        if labels is not None:
            return Batch(images[which], labels[which], which)
        generator = torch.Generator().manual_seed(int(which[0]))
        signs = torch.randint(0, 2, (len(which), *self.outputs.shape[1:]), generator=generator) * 2.0 - 1
        return Batch(images[which], signs, which)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy, or without labels the output along the direction of each image."""
        if self.labels is None:
            return (output * batch.labels).sum() / len(output)
        scores = output.clamp(min=1e-12).log() if self.probabilities else output
        return F.cross_entropy(scores, batch.labels)  # probabilities sum to 1: their logarithms are logits

    def metrics(self) -> MetricCollection:
        """None beside those of `measure`."""
        return MetricCollection({})

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """Where there are classes, of the largest outputs."""
        return same_class(reference, output) if self.classes else super().agreement(output, reference)

    def measure(self, model: nn.Module) -> dict[str, float]:
        """``change`` of the output, relative; where there are classes ``same class`` and, with labels, ``accuracy``;
        for a detector the part of the ``detections`` that are still there."""
        outputs = outputs_of(model, self.images)
        found = {"change": relative_change(self.outputs, outputs)}
        if self.classes:
            found["same class"] = same_class(self.outputs, outputs)
        if self.labels is not None:
            found["accuracy"] = float((outputs.argmax(1) == self.labels).float().mean())
        if self.detections is not None:
            detections = _detections(model, self.images)
            assert detections is not None
            found["detections"] = kept_detections(self.detections, detections)
        return {key: round(value, 6) for key, value in found.items()}

    def score(self, model: nn.Module) -> float:
        """Accuracy, or without labels 1 less the change of the output; higher is better."""
        measured = self.measure(model)
        return measured.get("accuracy", 1 - measured["change"])


@torch.inference_mode()
def outputs_of(model: nn.Module, images: Tensor) -> Tensor:
    """Of all images.

    Raises:
        RecipeError: the network cannot read them, or gives no single tensor.
    """
    try:
        outputs = [model(batch) for batch in images.split(BATCH)]
    except (AssertionError, RuntimeError) as error:
        size = "x".join(map(str, images.shape[1:]))
        raise RecipeError(f"the network cannot read images of {size}: {str(error).splitlines()[0]}") from None
    if not all(isinstance(output, Tensor) for output in outputs):
        raise RecipeError("the network gives several outputs, which hooks cannot follow")
    return torch.cat(outputs)


@torch.inference_mode()
def _detections(model: nn.Module, images: Tensor) -> list[Tensor] | None:
    """Of each image, as `DetectionOutput` has them; None where there are none."""
    if not (isinstance(model, CaffeNet) and model.detects):
        return None
    try:
        model.joined = False
        return [model(image[None])[0, 0] for image in images]
    finally:
        model.joined = True


def _ends_in_softmax(model: nn.Module) -> bool:
    last = [module for module in model.modules() if not list(module.children())][-1:]
    return any(isinstance(module, nn.Softmax) for module in last)
