"""What a recipe would do, step by step, without doing it: nothing is written."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from distill.artifact import Artifact
from distill.batch import Batch
from distill.data import DataModule
from distill.measure.evaluation import to_accelerator
from distill.models import cost
from distill.models.surgery import deployable
from distill.pipeline.dry_run import DryRun, Trial
from distill.pipeline.experiment import prepared
from distill.pipeline.step_store import finished_keys
from distill.pipeline.steps import StepSpec
from distill.recipe.schema import Recipe

TIMED_STEPS = 3
"""Training steps whose last is timed: the first ones warm caches up."""


@dataclass(frozen=True)
class PlannedStep:
    """One step of a run that has not been made."""

    name: str
    """"teacher", "baseline", "student/distill", "compress/1-svd", "export/onnx"."""
    network: str
    """The name of the network that the step trains, compresses or exports."""
    kept: bool
    """A finished step of an earlier run is reused."""
    epochs: int
    """0 where nothing is trained."""
    params: int
    """Of the network that the step leaves; of a hook that decides by quality, as it decides on an untrained network."""
    macs: int
    """Multiply-accumulates for one image."""
    seconds: float | None
    """Estimated from timed training steps and forward passes; 0 for a kept step, None where nothing is known."""


def plan(recipe: Recipe) -> list[PlannedStep]:
    """The steps of a recipe in the order in which a run makes them.

    Raises:
        DistillError: the recipe cannot run; see `distill.pipeline.dry_run`.
    """
    data, task, line = prepared(recipe)
    batches = list(islice(data.train_dataloader(), TIMED_STEPS))
    tried = DryRun(recipe, data, task, line, batches)
    kept = finished_keys(recipe.output)
    steps = [_planned(step, tried.trials[step.name], data, batches[0], step.key in kept) for step in line.steps]
    final = steps[-1]
    exports = [
        PlannedStep(f"export/{name}", final.network, False, 0, final.params, final.macs, None) for name in recipe.export
    ]
    return [*steps, *exports]


def _planned(step: StepSpec, trial: Trial, data: DataModule, batch: Batch, kept: bool) -> PlannedStep:
    training = step.inputs.training
    epochs = training.stage.epochs if training else 0
    small = deployable(trial.artifact.model)
    per_epoch = 0.0
    if training and not kept:
        validation = len(data.val_dataloader()) * _seconds(trial.artifact, batch)
        per_epoch = len(data.train_dataloader()) * trial.seconds + validation
    known = training is not None or step.start is None
    return PlannedStep(
        name=step.name,
        network=step.network.name,
        kept=kept,
        epochs=epochs,
        params=cost.params(trial.artifact.model),
        macs=cost.macs(small, batch.inputs[:1]),
        seconds=0.0 if kept else epochs * per_epoch if known else None,
    )


@torch.inference_mode()
def _seconds(artifact: Artifact, batch: Batch) -> float:
    """Of one forward pass."""
    predict = to_accelerator(artifact.copy_model())
    return statistics.median(_timed(lambda: predict(batch.inputs).cpu()) for _ in range(TIMED_STEPS))


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
