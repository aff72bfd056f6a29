"""What sections of a recipe must agree on where a component's signature decides, and what Lightning's Trainer takes."""

import ast
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from distill.errors import RecipeError
from distill.recipe.schema import Recipe, Stage
from distill.registry import did_you_mean, hook, loss, needs_teacher
from distill.registry.ranges import Range
from distill.registry.source import path_of

_OURS = {
    "max_epochs": "epochs belong to stages: write stages.NAME.epochs",
    "logger": "logging belongs to the section tracking",
    "overfit_batches": "a part of the data set is taken with data.limit",
    "callbacks": "callbacks are set by each stage",
}
_RANGES = {
    "accumulate_grad_batches": Range(at_least=1),
    "gradient_clip_val": Range(at_least=0),
    "log_every_n_steps": Range(at_least=0),
    "num_nodes": Range(at_least=1),
    "min_epochs": Range(at_least=0),
    "limit_train_batches": Range(above=0),
    "limit_val_batches": Range(at_least=0),
}
_PRECISIONS = (
    *("16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true", "64-true", "16", "32", "64", "bf16"),
    *("transformer-engine", "transformer-engine-float16"),
)


def check(recipe: Recipe) -> None:
    """Check what no single section can.

    Raises:
        RecipeError: two parts of the recipe do not fit.
    """
    check_trainer(recipe.trainer)
    check_average(recipe)
    check_losses(recipe)
    check_cache(recipe)
    check_rounds(recipe)


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Check names and numbers of Lightning's Trainer.

    Raises:
        RecipeError: an unknown name, one that other sections decide, or a number outside of its range.
    """
    for key, value in settings.items():
        if key in _OURS:
            raise RecipeError(f"at trainer.{key}: {_OURS[key]}")
        valid = [name for name in trainer_settings() if name not in _OURS]
        if key not in valid:
            for meant in get_close_matches(str(key), [*valid, *_OURS], n=1):
                if meant in _OURS:
                    raise RecipeError(f"at trainer: unknown setting of Lightning's Trainer '{key}'; {_OURS[meant]}")
            raise RecipeError(f"at trainer: unknown setting of Lightning's Trainer {did_you_mean(str(key), valid)}")
        if key in _RANGES and value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RecipeError(f"at trainer.{key}: {value!r} is not a number")
            _RANGES[key].check(value, f"at trainer.{key}: {key}")
        if key == "precision" and value is not None and str(value) not in _PRECISIONS:
            raise RecipeError(f"at trainer.precision: unknown precision {did_you_mean(str(value), _PRECISIONS)}")
        if key == "devices":
            _check_devices(value)


def _check_devices(value: Any) -> None:
    """A count, -1 or "auto" for all, or a list of indices; how many there are is asked when the run begins."""
    if isinstance(value, bool) or not isinstance(value, int | str | list):
        raise RecipeError(f"at trainer.devices: {value!r} is neither a count nor a list")
    if isinstance(value, int) and (value < -1 or value == 0):
        raise RecipeError(f"at trainer.devices: devices is {value}, but is at least 1, or -1 for all there are")


@cache
def trainer_settings() -> tuple[str, ...]:
    """The parameters of Lightning's Trainer, read from its source: importing it takes seconds."""
    tree = ast.parse(path_of("pytorch_lightning.trainer.trainer").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == "Trainer":
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    arguments = method.args
                    return tuple(a.arg for a in (*arguments.args, *arguments.kwonlyargs) if a.arg != "self")
    raise LookupError("pytorch_lightning has no Trainer")


def check_average(recipe: Recipe) -> None:
    """Check that weights have digits enough to be averaged in small steps.

    Raises:
        RecipeError: ``ema`` with weights of 16 bits.
    """
    precision = str(recipe.trainer.get("precision"))
    if precision in ("bf16-true", "16-true") and (recipe.ema or any(stage.ema for stage in recipe.stages.values())):
        raise RecipeError(
            f"at ema: weights of precision={precision} have too few digits to be averaged in small steps: choose "
            "bf16-mixed or 32-true"
        )


def check_losses(recipe: Recipe) -> None:
    """Check that losses with a teacher have one.

    Raises:
        RecipeError: a stage's losses or blocks have no teacher, or want a trained one's weights of a peer.
    """
    for name, stage in recipe.stages.items():
        comparing = [key for key, spec in stage.losses.items() if needs_teacher(spec.name)]
        if comparing and not stage.peer and not recipe.teachers_of(stage):
            raise RecipeError(
                f"at stages.{name}: loss '{comparing[0]}' compares with a teacher, but the recipe has none"
            )
        fixed = [key for key, spec in stage.losses.items() if "teacher_model" in loss.signature(spec.name).required]
        if fixed and stage.peer:
            raise RecipeError(f"at stages.{name}: loss '{fixed[0]}' reads a trained teacher's weights; a peer has none")
        if stage.blocks and not recipe.teachers_of(stage):
            raise RecipeError(f"at stages.{name}: blocks learn from a teacher, but the recipe has none")


def check_cache(recipe: Recipe) -> None:
    """Check that a cached teacher outputs the same for the same image, whatever the rest of the batch.

    Raises:
        RecipeError: there is no teacher, or it normalises by the batch.
    """
    if not recipe.cache:
        return
    if not any(map(recipe.teachers_of, recipe.stages.values())):
        raise RecipeError("cache: there is no teacher whose outputs it could keep; remove it")
    for place, stage in _trainings(recipe).items():
        if stage.teacher_bn == "train":
            raise RecipeError(
                f"at {place}: with 'teacher_bn: train' the teacher's output for an image depends on the batch around "
                "it and cannot be cached; remove 'cache', or choose 'teacher_bn: eval'"
            )


def check_rounds(recipe: Recipe) -> None:
    """Check that a hook that is applied several times has a progress.

    Raises:
        RecipeError: it does all of its work at once.
    """
    for name, spec in recipe.compress.items():
        if spec.rounds > 1 and "progress" not in hook.signature(spec.name).injected:
            raise RecipeError(f"at compress.{name}: '{spec.name}' goes all the way at once; remove 'rounds'")


def check_unvalidated(recipe: Recipe) -> None:
    """Check that nothing is decided by the validation split of a data set that turned out to have none.

    Raises:
        RecipeError: ``keep: best`` or ``max_drop`` looks at it.
    """
    remedy = "which is empty; hold out a part of the training set, for example data.val=0.1"
    for place, stage in _trainings(recipe).items():
        if stage.keep == "best":
            raise RecipeError(f"at {place}: 'keep: best' is decided on the validation split, {remedy}")
    for name, spec in recipe.compress.items():
        if getattr(spec, "max_drop", None) is not None:
            raise RecipeError(f"at compress.{name}: 'max_drop' is measured on the validation split, {remedy}")


def _trainings(recipe: Recipe) -> dict[str, Stage]:
    """Every stage and every training after a hook, by its place."""
    stages = {f"stages.{name}": stage for name, stage in recipe.stages.items()}
    recoveries = {f"compress.{name}.finetune": spec.finetune for name, spec in recipe.compress.items() if spec.finetune}
    return {**stages, **recoveries}
