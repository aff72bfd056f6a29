"""A finished network, compressed by a recipe's hooks without its training: all it takes is images.

The network itself is the reference. Hooks that ask for a loss get, where there are no labels, a random direction of
the output for each image: the mean square of its derivatives is that of the output's own, as in Martens & Grosse,
arXiv:1503.05671, section 3.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.artifact.step import Step
from distill.batch import Batch
from distill.compress import hook
from distill.data.image_inputs import ImageInputs
from distill.errors import RecipeError
from distill.export import exporter
from distill.export.exported import Exported
from distill.measure.change import kept_detections, relative_change, same_class
from distill.models import cost
from distill.models.caffe import CaffeNet
from distill.models.surgery import deployable
from distill.recipe.schema import Compression, Hook
from distill.registry import call

log = logging.getLogger(__name__)

BATCH = 16
CALIBRATED = 256
"""Images that hooks look at, at most."""
FEW = 8
"""From so many images on, every fourth is kept from the hooks: changes are measured on those."""


@dataclass(frozen=True)
class Compressed:
    """What became of a network."""

    artifact: Artifact
    steps: tuple[Step, ...]
    """The network as it was, and after each hook. Metrics: ``change`` of the output, relative; where there are classes
    ``same class`` and, with labels, ``accuracy``; for a detector ``detections`` that are still there."""
    exported: Mapping[str, Exported]
    measured: int
    """Images that changes were measured on."""


def compress_network(
    artifact: Artifact,
    compression: Compression,
    inputs: ImageInputs,
    folder: Path,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Compressed:
    """Run hooks one after another, and exports at the end.

    Args:
        artifact: stays as it is.
        compression: hooks and exports; training between hooks is left out.
        inputs: images, with labels or without.
        folder: where exports go.
        on_step: called after each step.

    Raises:
        RecipeError: the images do not fit the network, or a hook cannot do what is asked.
        ExportError: an export cannot be made, or computes something else.
    """
    model = _one_tensor(artifact.copy_model(), joined=True)
    artifact = replace(artifact, model=model)
    reference = _Reference(model, inputs)
    steps: list[Step] = []

    def note(name: str, artifact: Artifact, started: float) -> Artifact:
        step = Step(
            step=name,
            params=cost.params(artifact.model),
            macs=cost.macs(deployable(artifact.model), inputs.images[:1]),
            bytes=artifact.nbytes(),
            metrics={key: round(value, 6) for key, value in reference.metrics(artifact.model).items()},
            latency_ms={},
            seconds=round(time.perf_counter() - started, 3),
        )
        steps.append(step)
        on_step(step)
        return replace(artifact, history=(*artifact.history, step))

    artifact = note("network", artifact, time.perf_counter())
    for number, (label, spec) in enumerate(compression.compress.items(), start=1):
        started = time.perf_counter()
        artifact = note(f"compress/{number}-{label}", reference.apply(spec, label, artifact), started)
    exported = {
        name: call(
            exporter.find(spec.name),
            spec,
            {"artifact": lambda: artifact, "folder": lambda: folder, "samples": lambda: reference.calibration},
        )
        for name, spec in compression.export.items()
    }
    whole = replace(artifact, model=_one_tensor(artifact.model, joined=False))
    return Compressed(whole, tuple(steps), exported, len(reference.images))


def _one_tensor(model: nn.Module, *, joined: bool) -> nn.Module:
    """Networks of several outputs, or of detections, as hooks can follow them; or as they are."""
    if isinstance(model, CaffeNet):
        model.joined = joined
    return model


class _Reference:
    """The network as it was: what it gave for the images, and what hooks may ask about it."""

    def __init__(self, model: nn.Module, inputs: ImageInputs) -> None:
        images, labels = inputs
        apart = torch.arange(len(images)) % 4 == 3 if len(images) >= FEW else torch.ones(len(images), dtype=torch.bool)
        self.images = images[apart]
        self.labels = None if labels is None else labels[apart]
        self.outputs = _outputs(model, self.images)
        self.classes = self.outputs.dim() == 2 and not (isinstance(model, CaffeNet) and model.several)
        if labels is not None and not (self.classes and int(labels.max()) < self.outputs.shape[1]):
            shape, most = list(self.outputs.shape[1:]), int(labels.max())
            raise RecipeError(f"labels up to {most} do not fit a network with outputs of shape {shape}")
        self.detections = _detections(model, self.images)
        self.log_probabilities = _ends_in_softmax(model)
        seen = torch.nonzero(~apart if len(images) >= FEW else apart).flatten()[:CALIBRATED]
        self.calibration = [self._batch(part, images, labels) for part in seen.split(BATCH)]

    def _batch(self, which: Tensor, images: Tensor, labels: Tensor | None) -> Batch:
        if labels is not None:
            return Batch(images[which], labels[which], which)
        generator = torch.Generator().manual_seed(int(which[0]))
        signs = torch.randint(0, 2, (len(which), *self.outputs.shape[1:]), generator=generator) * 2.0 - 1
        return Batch(images[which], signs, which)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, or without labels the output along a direction."""
        if self.labels is None:
            return (output * labels).sum() / len(output)
        return (
            F.nll_loss(output.clamp(min=1e-12).log(), labels)
            if self.log_probabilities
            else F.cross_entropy(output, labels)
        )

    def score(self, model: nn.Module) -> float:
        """Accuracy, or without labels what is left of the output."""
        metrics = self.metrics(model)
        return metrics.get("accuracy", 1 - metrics["change"])

    def metrics(self, model: nn.Module) -> dict[str, float]:
        outputs = _outputs(model, self.images)
        found = {"change": relative_change(self.outputs, outputs)}
        if self.classes:
            found["same class"] = same_class(self.outputs, outputs)
        if self.labels is not None:
            found["accuracy"] = float((outputs.argmax(1) == self.labels).float().mean())
        if self.detections is not None:
            detections = _detections(model, self.images)
            assert detections is not None
            found["detections"] = kept_detections(self.detections, detections)
        return found

    def apply(self, spec: Hook, label: str, artifact: Artifact) -> Artifact:
        if spec.finetune:
            log.warning("compress.%s.finetune is left out: there is no data to train on", label)
        available: dict[str, Callable[[], Any]] = {
            "artifact": lambda: artifact,
            "calibration": lambda: self.calibration,
            "evaluate": lambda: self.score,
            "example": lambda: self.calibration[0],
            "progress": lambda: 1.0,
            "task_loss": lambda: self.loss,
        }
        return call(hook.find(spec.name), spec, available)


@torch.inference_mode()
def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    try:
        outputs = [model(batch) for batch in images.split(BATCH)]
    except RuntimeError as error:
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
