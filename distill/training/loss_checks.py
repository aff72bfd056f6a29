"""Losses that a task's outputs or labels do not fit, refused by name before anything is computed."""

from collections.abc import Callable, Mapping
from typing import Any, get_origin, get_type_hints

from distill.batch import Batch
from distill.errors import RecipeError
from distill.losses import loss as losses
from distill.recipe.schema import Loss
from distill.registry import injected
from distill.tasks import Task
from distill.tasks.labels import described


def refuse_unfit(losses_of_stage: Mapping[str, Loss], task: Task, example: Batch) -> None:
    """Refuse losses that read what the task does not have.

    Args:
        losses_of_stage: by their keys, their taps written out.
        task: its outputs, and whether labels mean something to it.
        example: a few samples, for the form of their labels.

    Raises:
        RecipeError: a loss compares scores of classes where an output holds other values, or reads labels of another
            kind than the data's, or where there are none.
    """
    for key, spec in losses_of_stage.items():
        component = losses.find(spec.name)
        call = getattr(component, "forward", component)
        if "classes" in axes_of(get_type_hints(call).get("student")):
            _check_taps(key, spec, task)
        if "labels" in injected(call):
            _check_labels(key, call, task, example.labels)


def _check_taps(key: str, spec: Loss, task: Task) -> None:
    """Of an output, a loss of class scores reads the parts that hold some; what a module computes, it may read."""
    name, scores = type(task).__name__, task.class_scores
    if scores is None:
        return
    if not scores:
        raise RecipeError(f"loss '{key}' compares scores of classes, but outputs of {name} hold none")
    for tap in (*spec.student, *spec.teacher):
        if (not tap or tap.startswith(":")) and tap not in scores:
            what = f"'{tap}'" if tap else "the output"
            raise RecipeError(
                f"loss '{key}' compares scores of classes, but {what} of {name} holds other values: "
                f"set student: ['{scores[0]}'], teacher: ['{scores[0]}']"
            )


def _check_labels(key: str, call: Callable[..., Any], task: Task, labels: Any) -> None:
    if labels is None or task.label_kind == "none":
        raise RecipeError(f"loss '{key}' reads labels, but {type(task).__name__} has none: remove it")
    wanted = get_type_hints(call).get("labels")
    if not _fits(labels, wanted):
        kind = "boxes" if get_origin(wanted) is list else "masks" if len(axes_of(wanted)) == 3 else "classes"
        raise RecipeError(f"loss '{key}' reads {kind}, but the labels of this data are {described(labels)}: remove it")


def _fits(labels: Any, annotation: Any) -> bool:
    """Whether labels are of the shape, or the list, that a loss says it reads; other annotations say nothing."""
    if get_origin(annotation) is list:
        return isinstance(labels, list)
    return not axes_of(annotation) or isinstance(labels, annotation)


def compares_one_shape(call: Callable[..., Any]) -> bool:
    """Whether a loss says, by names of axes, that it reads the same shape of the student and of the teacher."""
    hints = get_type_hints(call)
    student, teacher = (axes_of(hints.get(role)) for role in ("student", "teacher"))
    return bool(student) and student == teacher and not {"_", "..."} & {*student}


def axes_of(annotation: Any) -> list[str]:
    """Names of the axes of a shape as jaxtyping writes it; empty for other annotations."""
    return str(getattr(annotation, "dim_str", "")).split()
