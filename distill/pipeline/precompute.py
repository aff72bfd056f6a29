"""Compute the teachers' outputs for every image before training, so that the first epochs are fast too."""

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

import pytorch_lightning as pl
import torch
from rich.progress import Progress

from distill.batch import Batch
from distill.console import console
from distill.data import Viewed
from distill.errors import RecipeError
from distill.parent import followed_by_children
from distill.pipeline.dry_run import DryRun
from distill.pipeline.experiment import Experiment
from distill.pipeline.run import train_teachers
from distill.pipeline.step_store import Finished
from distill.processes import naming_lost_processes
from distill.recipe.schema import Recipe
from distill.training.cache import CachedTeacher, set_views
from distill.training.ensemble import combined
from distill.training.memory_format import to_memory_format
from distill.training.teacher import Teacher
from distill.training.trainer import build_trainer

Group = tuple[tuple[str, float], ...]
"""Teachers that teach together, and their weights."""


def fill(recipe: Recipe) -> None:
    """Train the recipe's teachers, unless that is done, and keep their outputs at every tap that a stage reads.

    Raises:
        RecipeError: the recipe has no cache.
    """
    if not recipe.cache:
        raise RecipeError("the recipe has no cache to fill: add cache={views: 4}")
    with Experiment.open(replace(recipe, tracking=replace(recipe.tracking, mode="disabled"))) as experiment:
        known = train_teachers(experiment)
        for group, taps in _stage_teachers(experiment).items():
            if early := [name for name, _ in group if name not in known]:
                console.print(f"{'cache':<22} stage '{early[0]}' teaches only when it is done: its outputs come later")
            else:
                _fill(experiment, group, taps, known)


def _stage_teachers(experiment: Experiment) -> dict[Group, set[str]]:
    """The taps that stages read, by the teachers that they read them from."""
    taps: dict[Group, set[str]] = {}
    for stage in DryRun(experiment.recipe, experiment.data, experiment.task, experiment.line).modules():
        if stage.teacher:
            group = tuple(experiment.recipe.teachers_of(stage.stage).items())
            taps.setdefault(group, set()).update(cast(Teacher, stage.teacher).paths)
    return taps


def _fill(experiment: Experiment, group: Group, taps: Collection[str], known: Mapping[str, Finished]) -> None:
    recipe, data, started = experiment.recipe, experiment.data, time.perf_counter()
    assert recipe.cache
    set_views(data, recipe.cache.views)
    models = {name: known[name].artifact.copy_model() for name, _ in group}
    teacher = experiment.cached(Teacher(combined(models, dict(group)), sorted(taps), parts=experiment.task.parts))
    batches = cast(Viewed, data).every_view()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("cache", total=len(batches))
        module = _Filling(teacher, channels_last=recipe.channels_last, advance=lambda: progress.advance(bar))
        settings = {**recipe.trainer, "limit_val_batches": 1.0}
        trainer = build_trainer(settings, logger=False, enable_checkpointing=False)
        with followed_by_children(), naming_lost_processes("cache"):
            trainer.validate(module, batches, verbose=False)
    seconds = time.perf_counter() - started
    console.print(f"{'cache':<22} {teacher.store.summary()}, complete after {seconds:.1f} s")


class _Filling(pl.LightningModule):
    """Lightning moves the batches, chooses the precision and starts the processes, as it will in training."""

    def __init__(self, teacher: CachedTeacher, *, channels_last: bool, advance: Any) -> None:
        super().__init__()
        self.teacher, self.advance = teacher, advance
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        to_memory_format(self, self.memory_format)

    def validation_step(self, batch: Batch, _: int) -> None:
        self.teacher.complete(batch._replace(inputs=batch.inputs.contiguous(memory_format=self.memory_format)))
        self.advance()
