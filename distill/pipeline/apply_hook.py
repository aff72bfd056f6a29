"""One compression hook, called with the arguments that it asks for."""

from collections.abc import Callable
from typing import Any

from torch import nn

from distill.artifact import Artifact
from distill.compress import hook
from distill.compress._contract import call_hook
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
    monitor: Callable[[nn.Module], float],
    samples: int,
    progress: float,
) -> Artifact:
    """Call a hook on an artifact, which stays as it is.

    Args:
        spec: the hook's entry in the recipe.
        artifact: what to compress.
        data: where calibration images come from.
        task: what the network's output means.
        monitor: the task's monitor on the validation split, in its own unit and direction.
        samples: calibration images.
        progress: see `distill.compress.hook`.

    Raises:
        RecipeError: the hook cannot do what is asked.
    """
    injectable: dict[str, Callable[[], Any]] = {
        "artifact": lambda: artifact,
        "calibration": lambda: data.calibration(samples),
        "evaluate": lambda: Quality(task, monitor, artifact.model),
        "example": lambda: data.calibration(8)[0],
        "progress": lambda: progress,
        "task_loss": lambda: task.total,
    }
    return call_hook(spec.name, lambda: call(hook.find(spec.name), spec, injectable), artifact)


class Quality:
    """A network's quality on the validation split, higher is better: what hooks compare.

    A difference of two values is what `max_drop` limits; see `distill.tasks.Task.quality`.

    Args:
        task: whose monitor it is.
        monitor: computes it.
        reference: the network before the hook.
    """

    def __init__(self, task: Task, monitor: Callable[[nn.Module], float], reference: nn.Module) -> None:
        self.task, self.monitor, self.network = task, monitor, reference
        self.reference: float | None = None

    def __call__(self, model: nn.Module) -> float:
        if self.task.units.get(self.task.monitor) == "%":  # no reference is needed
            return self.task.quality(self.monitor(model), 1.0)
        if self.reference is None:
            self.reference = self.monitor(self.network)
        value = self.reference if model is self.network else self.monitor(model)
        return self.task.quality(value, self.reference)
