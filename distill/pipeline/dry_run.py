"""Every training and every hook of a recipe, tried on new networks and a few images before anything is trained.

A mistake is reported in seconds, not after the hours of training that come before it.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from distill.artifact import Artifact, read_artifact
from distill.artifact.straight_through import finalize, trainable
from distill.batch import Batch
from distill.console import console
from distill.data import DataModule
from distill.errors import ExportError, RecipeError, TrainingError
from distill.export import check_exports, refuse_unwritable
from distill.pipeline.apply_hook import apply_hook
from distill.pipeline.build import build_distiller, initial_artifact, outside_modules, without_auxiliary
from distill.pipeline.steps import Line, StepSpec
from distill.recipe.schema import Network, Recipe, Stage
from distill.tasks import Task
from distill.training.cache import check_kept
from distill.training.distiller import Distiller
from distill.training.ensemble import combined
from distill.training.memory_format import to_memory_format
from distill.training.teacher import Teacher
from distill.training.trainer import shares
from distill.training.trial import try_steps

SAMPLES = 32
"""Images that hooks are tried on."""
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What networks, losses and tasks of other authors raise when they do not fit; torchvision's ViT asserts its size."""


@dataclass(frozen=True)
class Trial:
    """One step of a run, tried."""

    artifact: Artifact
    """What the step leaves, but for its weights: nobody has trained them."""
    module: Distiller | None
    """Its training, after the trial's steps; None where nothing is trained."""
    seconds: float
    """Of the last training step; 0 where nothing is trained."""


class DryRun:
    """Tries a recipe.

    Args:
        recipe: the recipe.
        data: its data set.
        task: its task.
        line: its steps.
        batches: what every training is tried on; None: one of a few images.

    Raises:
        DataError: a split has nothing that metrics count.
        ExportError: an export whose runtime is not installed, whose settings are for another task, or which cannot
            write the network.
        RecipeError: names the place in the recipe, and what does not fit there: a network and the data, a tap that does
            not exist, feature maps that a loss cannot compare, a training step that fails, outputs that the cache
            cannot keep, a hook that cannot follow the one before it, an artifact that does not compute the same after
            it was saved and loaded.
        TrainingError: a loss is NaN or Inf in the first steps.
    """

    def __init__(
        self, recipe: Recipe, data: DataModule, task: Task, line: Line, batches: Sequence[Batch] | None = None
    ) -> None:
        self.recipe, self.data, self.task, self.line = recipe, data, task, line
        self.example = data.calibration(8)[0]
        task.check_labels(self.example)
        task.check_countable(chain([self.example], data.train_dataloader()), "the training split")
        task.check_countable(data.val_dataloader(), "the validation split")
        task.check_countable(data.test_dataloader(), "the test split")
        self.batches = batches or [self._share()] * 2
        self.known: dict[str, nn.Module] = {}
        """Networks by the names that stages call their teachers by."""
        self.trials: dict[str, Trial] = {}
        """By the names of the steps."""
        check_exports(recipe.export.values(), task)
        with _quiet_hooks(), torch.random.fork_rng(devices=[]):
            self._teachers()
            self._export(self._compress(self._stages()))
        self._check_top_k()

    def _share(self) -> Batch:
        """A training batch as one process of the run sees it, or 8 images of it."""
        size = getattr(self.recipe.data, "batch_size", 8) // shares(self.recipe.trainer)
        return self.data.calibration(max(1, min(8, size)))[0]

    def modules(self) -> list[Distiller]:
        """Every stage of the student and every training after a hook."""
        trials = [trial for name, trial in self.trials.items() if name.startswith(("student/", "compress/"))]
        return [trial.module for trial in trials if trial.module]

    def _check_top_k(self) -> None:
        cache, teachers = self.recipe.cache, [module.teacher for module in self.modules()]
        taps = {path for teacher in teachers if teacher for path in cast(Teacher, teacher).paths}
        if cache and cache.top_k and "" not in taps:
            raise RecipeError(
                f"cache.top_k={cache.top_k} is for a teacher's whole output, which no stage compares: "
                "set cache.top_k=null"
            )

    def _teachers(self) -> None:
        for name, step in self.line.teachers.items():
            artifact = self._fitting(f"teacher '{step.network.name}'", step.network)
            training = step.inputs.training
            with _at("teacher" if name == "teacher" else f"teachers.{name}"):
                self.known[name] = self._keep(step, artifact, training.stage if training else None).artifact.model

    def _stages(self) -> Artifact:
        """The recipe's student after its last stage."""
        artifact = self._fitting(f"student '{self.recipe.student.name}'", self.recipe.student)
        if self.line.has_baseline:
            assert self.line.baseline.inputs.training
            with _at("student, trained without a teacher (baseline)"):
                self._keep(self.line.baseline, artifact, self.line.baseline.inputs.training.stage)
        for name, stage in self.recipe.stages.items():
            with _at(f"stages.{name}"):
                own = self._fitting(f"student '{stage.student.name}'", stage.student) if stage.student else None
                trained = self._keep(self.line.stages[name], own or artifact, stage).artifact
            shipped = without_auxiliary(trained, self.example.inputs)
            self.known[name], artifact = shipped.model, artifact if stage.student else trained
        return without_auxiliary(artifact, self.example.inputs)

    def _compress(self, artifact: Artifact) -> Artifact:
        """What the last hook leaves."""
        steps = iter(self.line.compress)
        for name, hook in self.recipe.compress.items():
            stage, turns = self.recipe.recovery(hook), [next(steps) for _ in range(hook.rounds)]
            for step in (turns[0], turns[-1]) if hook.rounds > 1 else turns:  # the first round and the last one
                with _at(f"compress.{name}"):
                    before = artifact
                    progress = 1 / hook.rounds if step is turns[0] else 1.0
                    artifact = apply_hook(
                        hook, before, self.data, self.task, monitor=lambda _: 1.0, samples=SAMPLES, progress=progress
                    )
                    self._check_artifact(artifact)
                    module, seconds = None, 0.0
                    if stage:
                        module, seconds = self._trained(trainable(artifact), stage)
                        model, plans = module.deployed()
                        if plans:
                            raise RecipeError(f"'{plans[0].hook}' changes the network; give finetune losses of its own")
                        self._check_artifact(finalize(artifact, model))
                alike = (turns[:-1] or turns) if step is turns[0] else [step]
                self.trials |= {other.name: Trial(artifact, module, seconds) for other in alike}
        return artifact

    def _export(self, artifact: Artifact) -> None:
        for name, spec in self.recipe.export.items():
            with _at(f"export.{name}"):
                refuse_unwritable(spec.name, artifact, self.example.inputs, self.task)

    def _keep(self, step: StepSpec, artifact: Artifact, stage: Stage | None) -> Trial:
        """Try a step that trains a network, or takes it as it is."""
        module, seconds = None, 0.0
        if stage:
            module, seconds = self._trained(artifact.copy_model(), stage)
            model, plans = module.deployed()
            if plans:
                artifact = replace(artifact, model=model, plans=(*artifact.plans, *plans))
        if not step.continued:
            artifact = without_auxiliary(artifact, self.example.inputs)
        self.trials[step.name] = Trial(artifact, module, seconds)
        return self.trials[step.name]

    def _trained(self, student: nn.Module, stage: Stage) -> tuple[Distiller, float]:
        """A stage after a few real steps, and the seconds of the last one."""
        names = {} if stage.peer or not (stage.losses or stage.blocks) else self.recipe.teachers_of(stage)
        models = {name: _copied(self.known[name]) for name in names}
        teacher = combined(models, names) if models else None
        module = build_distiller(self.recipe, self.data, self.task, student, teacher, stage)
        if (cache := self.recipe.cache) and module.teacher:  # in a step its outputs have the type that they are kept in
            module.teacher.register_forward_hook(lambda _module, _batch, outputs: check_kept(outputs, cache))
        try:
            return module, self._steps(module)
        except FAILURES as error:
            if not self.recipe.channels_last:
                raise self._failing(error) from error
            self._without_channels_last(module, error)
            return module, self._steps(module)

    def _steps(self, module: Distiller) -> float:
        return try_steps(module, self.batches, self.recipe.trainer)[-1]

    def _without_channels_last(self, module: Distiller, error: Exception) -> None:
        """Try the same in the other memory layout, and stay with that for the whole run if it works there.

        Raises:
            RecipeError: it does not.
        """
        module.memory_format = torch.contiguous_format
        to_memory_format(module.cpu(), module.memory_format)
        try:
            self._steps(module)
        except FAILURES:
            raise self._failing(error) from error
        console.print(f"channels_last=false: a network of this recipe fails in that layout ({_first_line(error)})")
        self.recipe = replace(self.recipe, channels_last=False)

    def _failing(self, error: Exception) -> RecipeError:
        alone = len(self.batches[0].inputs) == 1  # batch norm cannot normalise a single value per channel
        remedy = "; a process trains on one image at a time: raise data.batch_size or data.limit" if alone else ""
        precision = str(self.recipe.trainer.get("precision"))
        if precision in ("bf16-true", "16-true", "64-true"):
            other = "32-true" if precision == "64-true" else "bf16-mixed"
            remedy += f"; not every loss and hook takes weights of {precision}: choose trainer.precision={other}"
        return RecipeError(f"a training step fails: {_first_line(error)}{remedy}")

    @torch.no_grad()
    def _fitting(self, role: str, spec: Network) -> Artifact:
        """A new network whose forward pass and output fit data and task."""
        artifact = initial_artifact(spec, self.data, self.task, self.recipe.seed)
        try:
            output = artifact.model(self.example.inputs)
        except FAILURES as error:
            size = "x".join(map(str, self.example.inputs.shape[1:]))
            raise RecipeError(f"the {role} cannot read inputs of {size}: {_first_line(error)}") from error
        try:
            self.task.check(output, self.example)
            self.task.terms(output, self.example)
        except RecipeError as error:
            if str(error).startswith("task."):  # a setting of the task, whatever the network
                raise
            raise RecipeError(f"the {role} {error}") from error
        return artifact

    @torch.no_grad()
    def _check_artifact(self, artifact: Artifact) -> None:
        """See that an artifact's output fits the task, and that a saved and loaded one outputs the same."""
        output = artifact.model(self.example.inputs)
        self.task.check(output, self.example)
        saved = artifact.to_bytes()
        loaded = read_artifact(saved, "the artifact", allow=outside_modules(self.recipe)).model(self.example.inputs)
        if not torch.allclose(loaded, output, rtol=1e-4, atol=1e-5 * _scale(output), equal_nan=True):
            raise RecipeError("the artifact computes something else after it was saved and loaded")


def _copied(model: nn.Module) -> nn.Module:
    return Artifact(model).copy_model()


def _scale(output: Tensor) -> float:
    return float(output.abs().max().nan_to_num(1.0, 1.0))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def _quiet_hooks() -> Iterator[None]:
    """What hooks log about untrained networks would mislead, as would Lightning's lines about its Trainer."""
    logs = [logging.getLogger(name) for name in ("distill.compress", "pytorch_lightning", "lightning.pytorch")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Say where in the recipe a mistake is."""
    try:
        yield
    except (ExportError, RecipeError, TrainingError) as error:
        raise type(error)(f"at {place}: {error}") from error
