"""A finished network, compressed by a recipe's hooks without its training: all it takes is images."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
    measured: int
    """Images that changes were measured on."""
    exported: Mapping[str, Exported] = field(default_factory=dict)


def compress_network(
    artifact: Artifact,
    compression: Compression,
    inputs: ImageInputs,
    info: DataInfo,
    folder: Path,
    task: Task | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
    before_exports: Callable[[Compressed], None] = lambda compressed: None,
) -> Compressed:
    """Run hooks one after another, and exports at the end.

    Args:
        artifact: stays as it is.
        compression: hooks and exports; training between hooks is left out.
        inputs: images, with labels or without.
        info: what images the network reads.
        folder: where exports go.
        task: what the network was trained for, by which files are exported; None: nobody knows.
        on_step: called after each step.
        before_exports: called with what exports are made of: a failure of theirs is not to cost the hooks' work.

    Raises:
        RecipeError: the images do not fit the network, or a hook cannot do what is asked.
        ExportError: an export does not fit the task, which is said before the hooks; cannot be made; or computes
            something else.
    """
    model = _joined(artifact.copy_model(), joined=True)
    artifact = replace(artifact, model=model)
    reference = Reference(info, model, inputs)
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
    whole = replace(artifact, model=_joined(artifact.copy_model(), joined=False))
    compressed = Compressed(whole, tuple(steps), len(reference.images))
    before_exports(compressed)
    available: dict[str, Callable[[], Any]] = {
        "artifact": lambda: artifact,
        "folder": lambda: folder,
        "samples": lambda: reference.calibration,
        "task": lambda: task or reference,
    }
    exported = {name: call(exporter.find(spec.name), spec, available) for name, spec in compression.export.items()}
    return replace(compressed, exported=exported)


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
