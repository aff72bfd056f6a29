"""A finished network, compressed by a recipe's hooks without its training: all it takes is images."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from distill.artifact import Artifact
from distill.artifact.step import Step
from distill.compress import hook
from distill.data.image_inputs import ImageInputs
from distill.data.info import DataInfo
from distill.export import check_exports, exporter
from distill.export.exported import Exported
from distill.measure.costs import costs
from distill.models.caffe import CaffeNet
from distill.pipeline.reference import Reference
from distill.recipe.schema import Compression, Hook
from distill.registry import call
from distill.tasks import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compressed:
    """What became of a network."""

    artifact: Artifact
    steps: tuple[Step, ...]
    """The network as it was, and after each hook; for their metrics, see `Reference.measure`."""
    reference: Reference
    """What changes were measured by."""
    task: Task
    """By which files are exported."""

    @property
    def measured(self) -> int:
        """Images that changes were measured on."""
        return len(self.reference.images)


def compress_network(
    artifact: Artifact,
    compression: Compression,
    inputs: ImageInputs,
    info: DataInfo,
    task: Task | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Compressed:
    """Run hooks one after another.

    Args:
        artifact: stays as it is.
        compression: hooks, and exports, which are checked here and made by `export_compressed`; training between hooks
            is left out.
        inputs: images, with labels or without.
        info: what images the network reads.
        task: what the network was trained for; None: nobody knows.
        on_step: called after each step.

    Raises:
        RecipeError: the images do not fit the network, or a hook cannot do what is asked.
        ExportError: an export does not fit the task, which is said before the hooks.
    """
    artifact = replace(artifact, model=_joined(artifact.copy_model(), joined=True))
    reference = Reference(info, artifact.model, inputs)
    check_exports(compression.export.values(), task or reference)
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
    artifact = replace(artifact, model=_joined(artifact.model, joined=False))
    return Compressed(artifact, tuple(steps), reference, task or reference)


def export_compressed(compressed: Compressed, compression: Compression, folder: Path) -> dict[str, Exported]:
    """Make the exports of a compressed network, by their names.

    Raises:
        ExportError: one cannot be made, or computes something else.
    """
    artifact = compressed.artifact
    artifact = replace(artifact, model=_joined(artifact.copy_model(), joined=True))
    available: dict[str, Callable[[], Any]] = {
        "artifact": lambda: artifact,
        "folder": lambda: folder,
        "samples": lambda: compressed.reference.calibration,
        "task": lambda: compressed.task,
    }
    return {name: call(exporter.find(spec.name), spec, available) for name, spec in compression.export.items()}


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
        "task_loss": lambda: reference.loss,
    }
    return call(hook.find(spec.name), spec, available)
