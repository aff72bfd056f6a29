"""What every step of a run needs: data, task, folder and tracker, all checked before any work begins."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.text import Text
from torch import nn

from distill import __version__
from distill.artifact import Artifact
from distill.artifact.step import Step
from distill.batch import Batch, Predict
from distill.console import console
from distill.data import READING, DataModule
from distill.errors import RecipeError
from distill.measure.costs import costs
from distill.measure.evaluation import score, to_accelerator, without_nan
from distill.models.surgery import deployable
from distill.pipeline.build import build_distiller, data_and_task, initial_artifact, outside_modules
from distill.pipeline.dry_run import DryRun
from distill.pipeline.step_store import Finished, Make, Steps
from distill.pipeline.steps import Foundation, Line, content_of, keyed, new_network
from distill.pipeline.tracking import Tracker
from distill.recipe.checks import check_unvalidated
from distill.recipe.plain import key, plain, resolved
from distill.recipe.schema import Network, Recipe, Stage
from distill.registry import injected
from distill.tasks import Task
from distill.tasks import task as tasks
from distill.training.cache import CachedTeacher, cached, set_views
from distill.training.ensemble import combined
from distill.training.fit import OnEpoch, Trained, fit
from distill.training.teacher import Teacher
from distill.training.trainer import require_trainer

UNKEYED = ("output", "tracking", "recipe", "latency_batch_sizes")
"""Sections that do not change any result."""


@dataclass(frozen=True)
class Experiment:
    """One recipe at work.

    >>> with Experiment.open(recipe) as experiment: ...
    """

    recipe: Recipe
    data: DataModule
    task: Task
    line: Line
    steps: Steps
    tracker: Tracker
    on_epoch: OnEpoch | None = None

    @classmethod
    @contextmanager
    def open(cls, recipe: Recipe, on_epoch: OnEpoch | None = None) -> Iterator["Experiment"]:
        """Build data and task, try every stage and hook on a few images, then make the run's folder."""
        data, task, line = prepared(recipe)
        require_trainer(recipe.trainer)
        tried = DryRun(recipe, data, task, line)
        folder = recipe.output / recipe.recipe / key(_effects(recipe), line.foundation.fingerprint)[:8]
        steps = Steps(folder, recipe.output, allow=outside_modules(recipe))
        (folder / "recipe.yaml").write_text(f"# distill {__version__}, torch {torch.__version__}\n{resolved(recipe)}")
        console.print(Text.assemble((recipe.recipe, "bold"), f" -> {folder}"))
        with Tracker(
            folder, name=f"{recipe.recipe}/{folder.name}", config=plain(recipe), **plain(recipe.tracking)
        ) as t:
            yield cls(tried.recipe, data, task, line, steps, t, on_epoch)

    @property
    def folder(self) -> Path:
        return self.steps.folder

    def do(self, name: str, key: str, make: Make) -> Finished:
        """A step, made or reused, and one line about it."""
        done = self.steps.do(name, key, make, lambda *made: self._describe(name, *made))
        shown = "  ".join(f"{metric} {value:.4f}" for metric, value in done.step.metrics.items())
        size = f"{done.step.parameters}  {done.step.bytes:,} bytes"
        when = "kept from an earlier run" if done.reused else f"{done.step.seconds:.1f} s"
        console.print(Text.assemble((f"{name:<22}", "green"), f" {shown}  {size}  {when}"))
        return done

    def network(self, spec: Network) -> Artifact:
        """A network with its first weights: from the seed, or from a checkpoint."""
        return replace(initial_artifact(spec, self.data, self.task, self.recipe.seed), about=self.about)

    def train(
        self, student: nn.Module, stage: Stage, title: str, folder: Path, teachers: Mapping[str, Finished]
    ) -> Trained:
        """One stage: the student learns from its teachers, by name, if there are any."""
        recipe = self.recipe
        models = {name: done.artifact.copy_model() for name, done in teachers.items()}
        module = build_distiller(
            recipe,
            self.data,
            self.task,
            student,
            combined(models, recipe.teachers_of(stage)) if models else None,
            stage,
            self.cached if recipe.cache else lambda teacher: teacher,
        )
        set_views(self.data, recipe.cache.views if recipe.cache and module.teacher else None)
        logger = self.tracker.logger(title)
        return fit(
            module,
            self.data,
            folder,
            title=title,
            settings=recipe.trainer,
            monitor=self.monitored,
            mode=self.task.mode,
            logger=logger,
            on_epoch=self.on_epoch,
        )

    def cached(self, teacher: Teacher) -> CachedTeacher:
        """A teacher behind the recipe's cache."""
        seen = {k: v for k, v in self.line.foundation.task.items() if k not in self.task.weights_of_losses}
        return cached(teacher, self.recipe, self.data, seen)

    def monitor(self, model: nn.Module) -> float:
        """The task's monitor on the validation split.

        Raises:
            RecipeError: there is no validation split.
        """
        metrics = self.validate(to_accelerator(deployable(model)))
        if self.monitored not in metrics:
            raise RecipeError("this hook compares networks on the validation split, which is empty: set data.val=0.1")
        return metrics[self.monitored]

    @property
    def monitored(self) -> str:
        """The monitor as it is called in curves and steps: "val/accuracy"."""
        return f"val/{self.task.monitor}"

    def validate(self, predict: Predict) -> dict[str, float]:
        """The task's metrics on the validation split; empty without one."""
        scores = score(predict, self.data.val_dataloader(), self.task)
        return {f"val/{name}": value for name, value in scores.items()}

    @cached_property
    def example(self) -> Batch:
        """A few training samples, not augmented."""
        return self.data.calibration(8)[0]

    @cached_property
    def about(self) -> dict[str, Any]:
        """What an artifact needs to be evaluated and exported on its own."""
        info = self.data.info
        return {
            "task": plain(self.recipe.task),
            "data": plain(self.recipe.data),
            "info": (info.unresized() if self.task.any_size else info).to_json(),
        }

    def _describe(self, name: str, artifact: Artifact, size: int, seconds: float) -> Step:
        """What a table shows of a step that was just made.

        Raises:
            TrainingError: the network answers NaN; what learned from it would be blamed for that.
        """
        return Step(
            step=name,
            **costs(artifact, self.example.inputs),
            bytes=size,
            latency_ms={},  # measured at the end, when every network can be timed in the same minute
            metrics=self.validate(without_nan(to_accelerator(deployable(artifact.model)), name)),
            seconds=seconds,
        )


def _effects(recipe: Recipe) -> dict[str, Any]:
    """All of a recipe that changes some result."""
    anywhere = replace(recipe, cache=recipe.cache and replace(recipe.cache, folder=None))
    sections = {name: section for name, section in keyed(anywhere).items() if name not in UNKEYED}
    return sections | {"data": _data_effects(recipe)}


def _data_effects(recipe: Recipe) -> dict[str, Any]:
    """All of the data section that changes some result."""
    return {name: value for name, value in plain(recipe.data).items() if name not in READING}


def prepared(recipe: Recipe) -> tuple[DataModule, Task, Line]:
    """Data, task and steps of a recipe; nothing is written.

    Raises:
        RecipeError: the cache and the data do not fit, or a validation split that decides something is empty.
    """
    require_trainer(recipe.trainer)
    data, task = data_and_task(recipe)
    set_views(data, recipe.cache.views if recipe.cache else None)
    if not len(data.val_dataloader()):
        check_unvalidated(recipe)
    content, names = data.fingerprint(), data.info.class_names
    foundation = Foundation(__version__, recipe.seed, _data_effects(recipe), content, names, _meaning(recipe, task))
    return data, task, Line(recipe if task.baseline else replace(recipe, baseline=False), foundation)


def _meaning(recipe: Recipe, task: Task) -> dict[str, Any]:
    """What losses and metrics of the task depend on: its section, the files that it reads, and the teacher of a task
    that asks for it."""
    section: dict[str, Any] = plain(recipe.task)
    if files := task.files():
        section = section | {"files": [content_of(file) for file in files]}
    if recipe.teacher and "teacher" in injected(tasks.find(recipe.task.name)):
        section = section | {"teacher": keyed(new_network(recipe.teacher))}
    return section
