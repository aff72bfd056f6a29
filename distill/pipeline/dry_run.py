"""Every stage and hook, tried on fresh networks and a few images before anything is trained.

What does not fit is said in seconds, not after the hours that came before it.
"""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from distill.artifact import Artifact
from distill.artifact.straight_through import trainable
from distill.data import DataModule
from distill.errors import RecipeError
from distill.export import refuse_missing
from distill.pipeline.apply_hook import apply_hook
from distill.pipeline.build import build_distiller, initial_artifact, without_auxiliary
from distill.recipe.schema import Network, Recipe, Stage
from distill.tasks import Task
from distill.training.distiller import Distiller
from distill.training.ensemble import combined

SAMPLES = 32
"""Images that hooks are tried on."""


@contextmanager
def _quiet_hooks() -> Iterator[None]:
    """What a hook says about a network that nobody trained would only mislead."""
    log = logging.getLogger("distill.compress")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Say where in the recipe a mistake is."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError(f"at {place}: {error}") from error


@_quiet_hooks()
def dry_run(recipe: Recipe, data: DataModule, task: Task) -> list[Distiller]:
    """Build all stages and apply all hooks, training nothing.

    Returns:
        Every stage and every training after a hook, on networks that nobody trained.

    Raises:
        ExportError: an export whose runtime is not installed.
        RecipeError: a network that does not fit the data, a tap that does not exist, feature maps that a loss cannot
            compare, a hook that cannot follow the one before it.
    """
    for spec in recipe.export.values():
        refuse_missing(spec.name)
    known = {name: _fitting(name, spec, data, recipe.seed).model for name, spec in recipe.all_teachers().items()}
    artifact = _fitting("student", recipe.student, data, recipe.seed)
    rehearsed = []
    for name, stage in recipe.stages.items():
        with _at(f"stages.{name}"):
            trained = _fitting("student", stage.student, data, recipe.seed) if stage.student else artifact
            rehearsed.append(_rehearsed(recipe, data, task, trained.copy_model(), known, stage))
            model, plans = rehearsed[-1].deployed()
            trained = replace(trained, model=model, plans=(*trained.plans, *plans))
        known[name], artifact = trained.model, artifact if stage.student else trained
    artifact = without_auxiliary(artifact, data.calibration(2)[0].inputs)
    for name, spec in recipe.compress.items():
        with _at(f"compress.{name}"):
            for progress in sorted({1 / spec.rounds, 1.0}):
                artifact = apply_hook(
                    spec, artifact, data, task, evaluate=lambda model: 1.0, samples=SAMPLES, progress=progress
                )
            if recovery := recipe.recovery(spec):
                rehearsed.append(_rehearsed(recipe, data, task, trainable(artifact), known, recovery))
                _, plans = rehearsed[-1].deployed()
                if plans:
                    raise RecipeError(f"'{plans[0].hook}' changes the network; give finetune losses of its own")
    return rehearsed


def _rehearsed(
    recipe: Recipe, data: DataModule, task: Task, student: nn.Module, known: Mapping[str, nn.Module], stage: Stage
) -> Distiller:
    models = {name: copy.deepcopy(known[name]) for name in recipe.teachers_of(stage)}
    teacher = combined(models, recipe.teachers_of(stage)) if models else None
    return build_distiller(recipe, data, task, student, teacher, stage)


@torch.no_grad()
def _fitting(role: str, spec: Network, data: DataModule, seed: int) -> Artifact:
    """A network that has been seen to read the data's images and to answer its classes."""
    artifact = initial_artifact(spec, data, seed)
    inputs = data.calibration(8)[0].inputs
    try:
        outputs = artifact.model(inputs)
    except RuntimeError as error:
        size = "x".join(map(str, inputs.shape[1:]))
        raise RecipeError(f"the {role} '{spec.name}' cannot read inputs of {size}: {error}") from None
    if outputs.shape[1:] != (data.info.num_classes,):
        raise RecipeError(f"the {role} answers {outputs.shape[1]} classes, but the data has {data.info.num_classes}")
    return artifact
