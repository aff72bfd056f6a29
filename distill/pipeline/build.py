"""What a recipe's entries become: data and task, networks with their first weights, stages ready to train."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from distill.artifact import Artifact
from distill.batch import Predict
from distill.data import DataModule
from distill.data import data as datasets
from distill.errors import RecipeError
from distill.measure.evaluation import to_accelerator
from distill.models.auxiliary import auxiliary_weights, heads_fit, remove_heads
from distill.models.build import REMOVED_HEADS, build_network, network_entry
from distill.models.input_transform import INPUT_TRANSFORM
from distill.models.weights import load_weights
from distill.pipeline.teacher_inputs import input_transform
from distill.recipe.schema import Network, Recipe, Stage, TeacherNetwork
from distill.registry import call
from distill.tasks import Task, injectable
from distill.tasks import task as tasks
from distill.training.distiller import Distiller
from distill.training.teacher import Teacher

log = logging.getLogger(__name__)


def data_and_task(recipe: Recipe) -> tuple[DataModule, Task]:
    """The data set, and what a network's output means on it.

    Raises:
        RecipeError: the task does not fit the data, or the data set lacks what a run needs.
    """
    data = call(datasets.find(recipe.data.name), recipe.data, {"seed": lambda: recipe.seed})
    if absent := [name for name in DATA_MODULE if not hasattr(data, name)]:
        raise RecipeError(f"data set '{recipe.data.name}' has no '{absent[0]}'; see distill.data.DataModule")
    component = tasks.find(recipe.task.name)
    task = call(component, recipe.task, injectable(data.info, lambda: _known_teacher(recipe, data)))
    if not isinstance(task, Task):
        raise RecipeError(f"task '{recipe.task.name}' is no distill.tasks.Task: derive its class from that one")
    return data, task


DATA_MODULE = ("info", "batch_size", "samples", "train_dataloader", "val_dataloader", "test_dataloader", "calibration")


def initial_artifact(spec: Network, data: DataModule, task: Task, seed: int) -> Artifact:
    """A network with its first weights: from the seed, or from a checkpoint."""
    return _initial_artifact(spec, data, task.network_arguments(), seed)


def _initial_artifact(spec: Network, data: DataModule, arguments: Mapping[str, Any], seed: int) -> Artifact:
    channels = data.info.channels * data.info.images
    entry = network_entry(spec, {**arguments, "channels": channels})
    own = input_transform(spec, data.info, entry.get("channels")) if isinstance(spec, TeacherNetwork) else None
    entry |= {INPUT_TRANSFORM: own} if own else {}
    torch.manual_seed(seed)
    model = build_network(entry, allow=[spec.name.partition(":")[0]])
    if lazy := [path for path, module in model.named_modules() if isinstance(module, LazyModuleMixin)]:
        raise RecipeError(
            f"{spec.name}: layer '{lazy[0]}' finds out its size from its first input, which no file can hold: give it "
            "its size, such as the argument 'channels'"
        )
    if spec.weights:
        trains_on = getattr(spec, "epochs", 1) > 0
        load_weights(model, spec.weights, name=spec.name, new_classifier=trains_on)
    artifact = Artifact(model.eval(), network=entry)
    images = data.calibration(2)[0].inputs
    if not heads_fit(model, images):
        size = "x".join(map(str, images.shape[2:]))
        log.warning("%s: its auxiliary heads cannot read images of %s and are left out", spec.name, size)
        artifact = without_auxiliary(artifact, images)
    return artifact


def _known_teacher(recipe: Recipe, data: DataModule) -> Predict:
    """The recipe's teacher, whose weights are known before anything is trained.

    Raises:
        RecipeError: there is no such teacher.
    """
    spec, name = recipe.teacher, recipe.task.name
    if spec is None:
        raise RecipeError(f"task '{name}' compares with a teacher: the recipe needs a section 'teacher' with weights")
    if spec.epochs:
        raise RecipeError(
            f"task '{name}' has no labels to train a teacher with: give teacher.weights=FILE and teacher.epochs=0"
        )
    return to_accelerator(_initial_artifact(spec, data, {}, recipe.seed).model.requires_grad_(False))


def without_auxiliary(artifact: Artifact, images: Tensor) -> Artifact:
    """The artifact of a network that is trained: auxiliary heads do not ship.

    Args:
        artifact: before any hook.
        images: a batch that the network reads.
    """
    if not auxiliary_weights(artifact.model):
        return artifact
    model = artifact.copy_model()
    removed = remove_heads(model, images)
    return replace(artifact, model=model.eval(), network={**artifact.network, REMOVED_HEADS: removed})


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
    facts = {
        "batch_size": data.batch_size,
        "train_labels": data.train_labels(),
        "num_classes": data.info.num_classes or None,
    }
    # Another seed: two networks that start with equal weights would teach each other nothing.
    peer = initial_artifact(stage.peer, data, task, recipe.seed + 1).model if stage.peer else None
    # What losses learn starts alike whatever this process trained before: a resumed run ends with equal numbers.
    torch.manual_seed(recipe.seed + 2)
    return Distiller(
        student,
        teacher,
        task,
        stage,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        example=data.calibration(8)[0],
        injectable={name: value for name, value in facts.items() if value is not None},
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
