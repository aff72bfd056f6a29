"""A finished network, compressed by a recipe's hooks without its training: all it takes is images."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.artifact.step import Step
from distill.batch import Batch
from distill.compress import hook
from distill.data.image_inputs import ImageInputs
from distill.data.info import DataInfo
from distill.export import exporter
from distill.export.exported import Exported
from distill.measure.costs import costs
from distill.models.caffe import CaffeNet
from distill.pipeline.reference import Reference
from distill.recipe.schema import Compression, Hook
from distill.registry import call

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compressed:
    """What became of a network."""

    artifact: Artifact
    steps: tuple[Step, ...]
    """The network as it was, and after each hook; for their metrics, see `Reference.measure`."""
    exported: Mapping[str, Exported]
    measured: int
    """Images that changes were measured on."""


def compress_network(
    artifact: Artifact,
    compression: Compression,
    inputs: ImageInputs,
    info: DataInfo,
    folder: Path,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Compressed:
    """Run hooks one after another, and exports at the end.

    Args:
        artifact: stays as it is.
        compression: hooks and exports; training between hooks is left out.
        inputs: images, with labels or without.
        info: what images the network reads.
        folder: where exports go.
        on_step: called after each step.

    Raises:
        RecipeError: the images do not fit the network, or a hook cannot do what is asked.
        ExportError: an export cannot be made, or computes something else.
    """
    model = _joined(artifact.copy_model(), joined=True)
    artifact = replace(artifact, model=model)
    reference = Reference(info, model, inputs)
    steps: list[Step] = []

    def note(name: str, artifact: Artifact, started: float) -> Artifact:
        step = _step(name, artifact, reference, started)
        steps.append(step)
        on_step(step)
        return replace(artifact, history=(*artifact.history, step))

    artifact = note("network", artifact, time.perf_counter())
    for number, (label, spec) in enumerate(compression.compress.items(), start=1):
        started = time.perf_counter()
        artifact = note(f"compress/{number}-{label}", _apply(spec, label, artifact, reference), started)
    available: dict[str, Callable[[], Any]] = {
        "artifact": lambda: artifact,
        "folder": lambda: folder,
        "samples": lambda: reference.calibration,
        "task": lambda: reference,
    }
    exported = {name: call(exporter.find(spec.name), spec, available) for name, spec in compression.export.items()}
    whole = replace(artifact, model=_joined(artifact.model, joined=False))
    return Compressed(whole, tuple(steps), exported, len(reference.images))


def _joined(model: nn.Module, *, joined: bool) -> nn.Module:
    """A network of several outputs, or of detections, with one tensor that hooks can follow; or as it is."""
    if isinstance(model, CaffeNet):
        model.joined = joined
    return model


def _step(name: str, artifact: Artifact, reference: Reference, started: float) -> Step:
    return Step(
        step=name,
        **costs(artifact, reference.images),
        bytes=artifact.nbytes(),
        metrics=reference.measure(artifact.model),
        latency_ms={},
        seconds=round(time.perf_counter() - started, 3),
    )


def _apply(spec: Hook, label: str, artifact: Artifact, reference: Reference) -> Artifact:
    if spec.finetune:
        log.warning("compress.%s.finetune is left out: there is no data to train on", label)
    available: dict[str, Callable[[], Any]] = {
        "artifact": lambda: artifact,
        "calibration": lambda: reference.calibration,
        "evaluate": lambda: reference.score,
        "example": lambda: reference.calibration[0],
        "progress": lambda: 1.0,
        "task_loss": lambda: _loss(reference),
    }
    return call(hook.find(spec.name), spec, available)


def _loss(reference: Reference) -> Callable[[Tensor, Any], Tensor]:
    def loss(output: Tensor, labels: Any) -> Tensor:
        return reference.loss(output, Batch(output, labels, torch.arange(len(output))))

    return loss
