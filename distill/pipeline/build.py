"""What a recipe's entries become: networks with their first weights, and stages ready to train."""

from collections.abc import Callable

import torch
from torch import nn

from distill.artifact import Artifact
from distill.data import DataModule
from distill.models.build import build_network, network_entry
from distill.models.input_transform import INPUT_TRANSFORM
from distill.models.weights import load_weights
from distill.pipeline.teacher_inputs import input_transform
from distill.recipe.schema import Network, Recipe, Stage, TeacherNetwork
from distill.tasks import Task
from distill.training.distiller import Distiller
from distill.training.teacher import Teacher


def initial_artifact(spec: Network, data: DataModule, seed: int) -> Artifact:
    """A network with its first weights: from the seed, or from a checkpoint."""
    entry = network_entry(spec, num_classes=data.info.num_classes, channels=data.info.channels)
    own = input_transform(spec, data, entry.get("channels")) if isinstance(spec, TeacherNetwork) else None
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
    labels = data.train_labels()
    # Another seed: two networks that begin alike would have nothing to tell each other.
    peer = initial_artifact(stage.peer, data, recipe.seed + 1).model if stage.peer else None
    return Distiller(
        student,
        teacher,
        task,
        stage,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        example=data.calibration(8)[0],
        injectable={"batch_size": data.batch_size, **({} if labels is None else {"train_labels": labels})},
        peer=peer,
        cached=cached,
        seed=recipe.seed,
        channels_last=recipe.channels_last,
        compiled=recipe.compile,
    )
