"""Every stage and hook, tried on fresh networks and a few images before anything is trained.

What does not fit is said in seconds, not after the hours that came before it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from distill import networks
from distill.artifact import Artifact
from distill.compress import hook
from distill.data import DataModule
from distill.distiller import Distiller
from distill.errors import RecipeError
from distill.registry import call
from distill.schema import Network, Recipe, Stage
from distill.straight_through import trainable
from distill.tasks import Task


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
def rehearse(recipe: Recipe, data: DataModule, task: Task) -> None:
    """Build all stages and apply all hooks, training nothing.

    Raises:
        RecipeError: a network that does not fit the data, a tap that does not exist, feature maps that a loss cannot
            compare, a hook that cannot follow the one before it.
    """
    teacher = _fitting("teacher", recipe.teacher, data, recipe.seed).model if recipe.teacher else None
    for name, stage in recipe.stages.items():
        student = _fitting("student", recipe.student, data, recipe.seed).model
        with _at(f"stages.{name}"):
            build_distiller(recipe, data, task, student, teacher, stage)
    artifact = _fitting("student", recipe.student, data, recipe.seed)
    for name, spec in recipe.compress.items():
        offers: dict[str, Any] = {
            "artifact": lambda now=artifact: now,
            "calibration": lambda: data.calibration(32),
            "evaluate": lambda: lambda model: 1.0,
            "example": lambda: data.calibration(8)[0],
        }
        with _at(f"compress.{name}"):
            artifact = call(hook.find(spec.name), spec, offers)
            if recovery := recipe.recovery(spec):
                build_distiller(recipe, data, task, trainable(artifact), teacher, recovery)


def build_distiller(
    recipe: Recipe, data: DataModule, task: Task, student: nn.Module, teacher: nn.Module | None, stage: Stage
) -> Distiller:
    """One stage of a recipe, ready to train."""
    return Distiller(
        student,
        teacher,
        task,
        stage,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        example=data.calibration(8)[0],
        offered={"train_labels": data.train_labels()},
        seed=recipe.seed,
        channels_last=recipe.channels_last,
    )


def first_artifact(spec: Network, data: DataModule, seed: int) -> Artifact:
    """A network with its first weights: from the seed, or from a checkpoint."""
    entry = networks.entry(spec, num_classes=data.num_classes, channels=data.channels)
    torch.manual_seed(seed)
    model = networks.build(entry, allow=[spec.name.partition(":")[0]])
    if spec.weights:
        trains_on = getattr(spec, "epochs", 1) > 0
        networks.load_weights(model, spec.weights, name=spec.name, new_classifier=trains_on)
    return Artifact(model.eval(), network=entry)


@torch.no_grad()
def _fitting(role: str, spec: Network, data: DataModule, seed: int) -> Artifact:
    """A network that has been seen to read the data's images and to answer its classes."""
    artifact = first_artifact(spec, data, seed)
    inputs = data.calibration(8)[0].inputs
    try:
        outputs = artifact.model(inputs)
    except RuntimeError as error:
        size = "x".join(map(str, inputs.shape[1:]))
        raise RecipeError(f"the {role} '{spec.name}' cannot read inputs of {size}: {error}") from None
    if outputs.shape[1:] != (data.num_classes,):
        raise RecipeError(f"the {role} answers {outputs.shape[1]} classes, but the data has {data.num_classes}")
    return artifact
