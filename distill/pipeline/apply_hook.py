"""One compression hook, called with those things that it asks for."""

from collections.abc import Callable
from typing import Any

from torch import nn

from distill.artifact import Artifact
from distill.compress import hook
from distill.data import DataModule
from distill.recipe.schema import Hook
from distill.registry import call
from distill.tasks import Task


def apply_hook(
    spec: Hook,
    artifact: Artifact,
    data: DataModule,
    task: Task,
    *,
    evaluate: Callable[[nn.Module], float],
    samples: int,
    progress: float,
) -> Artifact:
    """What a hook makes of an artifact.

    Args:
        spec: the hook's entry in the recipe.
        artifact: stays as it is.
        data: where calibration images come from.
        task: what they are learned for.
        evaluate: see `distill.compress.hook`.
        samples: calibration images.
        progress: see `distill.compress.hook`.

    Raises:
        RecipeError: the hook cannot do what is asked.
    """
    injectable: dict[str, Callable[[], Any]] = {
        "artifact": lambda: artifact,
        "calibration": lambda: data.calibration(samples),
        "evaluate": lambda: evaluate,
        "example": lambda: data.calibration(8)[0],
        "progress": lambda: progress,
        "task_loss": lambda: task.loss,
    }
    return call(hook.find(spec.name), spec, injectable)
