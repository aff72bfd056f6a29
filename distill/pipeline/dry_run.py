"""Every stage and hook, tried on fresh networks and a few images before anything is trained.

What does not fit is said in seconds, not after the hours that came before it.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from distill import networks
from distill.artifact import Artifact
from distill.data import DataModule
from distill.distiller import Distiller
from distill.ensemble import together
from distill.errors import RecipeError
from distill.export import refuse_missing
from distill.hooking import hooked
from distill.inputs import OWN, own_inputs
from distill.schema import Network, Recipe, Stage, TeacherNetwork
from distill.straight_through import trainable
from distill.tasks import Task
from distill.teacher import Teacher

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
def rehearse(recipe: Recipe, data: DataModule, task: Task) -> list[Distiller]:
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
    for name, spec in recipe.compress.items():
        with _at(f"compress.{name}"):
            for progress in sorted({1 / spec.rounds, 1.0}):
                artifact = hooked(
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
    teacher = together(models, recipe.teachers_of(stage)) if models else None
    return build_distiller(recipe, data, task, student, teacher, stage)


def build_distiller(
    recipe: Recipe,
    data: DataModule,
    task: Task,
    student: nn.Module,
    teacher: nn.Module | None,
    stage: Stage,
    cached: Callable[[Teacher], nn.Module] = lambda teacher: teacher,
) -> Distiller:
    """One stage of a recipe, ready to train."""
    # Another seed: two networks that begin alike would have nothing to tell each other.
    peer = first_artifact(stage.peer, data, recipe.seed + 1).model if stage.peer else None
    return Distiller(
        student,
        teacher,
        task,
        stage,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        example=data.calibration(8)[0],
        offered={"train_labels": data.train_labels(), "batch_size": data.batch_size},
        peer=peer,
        cached=cached,
        seed=recipe.seed,
        channels_last=recipe.channels_last,
        compiled=recipe.compile,
    )


def first_artifact(spec: Network, data: DataModule, seed: int) -> Artifact:
    """A network with its first weights: from the seed, or from a checkpoint."""
    entry = networks.entry(spec, num_classes=data.num_classes, channels=data.channels)
    own = own_inputs(spec, data, entry.get("channels")) if isinstance(spec, TeacherNetwork) else None
    entry |= {OWN: own} if own else {}
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
