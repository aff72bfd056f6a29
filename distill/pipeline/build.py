"""What a recipe's entries become: data and task, networks with their first weights, stages ready to train."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from distill.artifact import Artifact
from distill.data import DataModule
from distill.data import data as datasets
from distill.errors import RecipeError
from distill.models.build import build_network, network_entry
from distill.models.input_transform import INPUT_TRANSFORM
from distill.models.weights import load_weights
from distill.pipeline.teacher_inputs import input_transform
from distill.recipe.schema import Network, Recipe, Stage, TeacherNetwork
from distill.registry import call
from distill.tasks import Task
from distill.tasks import task as tasks
from distill.training.distiller import Distiller
from distill.training.teacher import Teacher


def data_and_task(recipe: Recipe) -> tuple[DataModule, Task]:
    """The data set, and what a network's output means on it.

    Raises:
        RecipeError: the task does not fit the data, or the data set lacks what a run needs.
    """
    data = call(datasets.find(recipe.data.name), recipe.data, {"seed": lambda: recipe.seed})
    if absent := [name for name in DATA_MODULE if not hasattr(data, name)]:
        raise RecipeError(f"data set '{recipe.data.name}' has no '{absent[0]}'; see distill.data.DataModule")
    component = tasks.find(recipe.task.name)
    task = call(component, recipe.task, {"info": lambda: data.info})
    if not isinstance(task, Task):
        raise RecipeError(f"task '{recipe.task.name}' is no distill.tasks.Task: derive its class from that one")
    return data, task


DATA_MODULE = ("info", "batch_size", "samples", "train_dataloader", "val_dataloader", "test_dataloader", "calibration")


def initial_artifact(spec: Network, data: DataModule, task: Task, seed: int) -> Artifact:
    """A network with its first weights: from the seed, or from a checkpoint."""
    channels = data.info.channels * data.info.images
    entry = network_entry(spec, {**task.network_arguments(), "channels": channels})
    own = input_transform(spec, data.info, entry.get("channels")) if isinstance(spec, TeacherNetwork) else None
    entry |= {INPUT_TRANSFORM: own} if own else {}
    torch.manual_seed(seed)
    model = build_network(entry, allow=[spec.name.partition(":")[0]])
    if spec.weights:
        trains_on = getattr(spec, "epochs", 1) > 0
        load_weights(model, spec.weights, name=spec.name, new_classifier=trains_on)
    return Artifact(model.eval(), network=entry)


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
    # Another seed: two networks that start with equal weights would teach each other nothing.
    peer = initial_artifact(stage.peer, data, task, recipe.seed + 1).model if stage.peer else None
    return Distiller(
        student,
        teacher,
        task,
        stage,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        example=data.calibration(8)[0],
        injectable={"batch_size": data.batch_size, **_class_labels(data)},
        peer=peer,
        cached=cached,
        seed=recipe.seed,
        channels_last=recipe.channels_last,
        compiled=recipe.compile,
    )


def outside_modules(recipe: Recipe) -> list[str]:
    """Modules outside this package that the recipe's networks come from: the recipe's author trusts them."""
    others = [network for stage in recipe.stages.values() for network in (stage.student, stage.peer)]
    specs = (recipe.student, *recipe.all_teachers().values(), *others)
    return [spec.name.partition(":")[0] for spec in specs if spec and ":" in spec.name]


def _class_labels(data: DataModule) -> dict[str, Any]:
    """``train_labels`` for the losses that ask for the class of each training sample; nothing without classes."""
    return {"train_labels": data.train_labels()} if data.info.num_classes else {}
