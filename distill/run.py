"""The straight line: recipe -> data -> teacher -> student, stage by stage -> hooks -> exports -> report."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill import measure
from distill.artifact import Artifact, deployable
from distill.compress import hook
from distill.conclusion import conclude
from distill.console import console
from distill.experiment import Experiment
from distill.export import exporter
from distill.export._exported import Exported
from distill.measure import Step
from distill.recipe import plain
from distill.registry import call
from distill.schema import Hook, Recipe, Stage
from distill.steps import Finished, key
from distill.straight_through import settle, trainable
from distill.training import Curve, OnEpoch

CALIBRATION_SAMPLES = 512


@dataclass(frozen=True)
class Result:
    """What a run leaves behind."""

    folder: Path
    steps: tuple[Step, ...]
    monitor: str
    value: float
    """The monitor of the compressed student on the validation split: what a sweep optimises. NaN without a split."""


def run(recipe: Recipe, *, on_epoch: OnEpoch | None = None) -> Result:
    """Do all that a recipe says; finished steps of earlier runs are reused.

    Args:
        recipe: from `distill.recipe.load`.
        on_epoch: called after every epoch with the step's name, the epoch and its metrics; may raise to stop.

    Raises:
        DistillError: see `distill.errors`.
    """
    with Experiment.open(recipe, on_epoch) as experiment:
        made = {}
        teacher = train_teacher(experiment) if recipe.teacher else None
        if teacher:
            made["teacher"] = teacher
        if teacher and recipe.baseline:
            made["alone"] = train_alone(experiment)
        stages = train_student(experiment, teacher)
        made["student"] = list(stages.values())[-1]
        made |= compress(experiment, made["student"], teacher)
        final = list(made.values())[-1]
        final.artifact.save(experiment.folder / "student.safetensors")
        exported = export(experiment, final.artifact)
        steps = conclude(experiment, made, stages, exported)
        monitor = experiment.task.monitor
        return Result(experiment.folder, steps, monitor, final.step.metrics.get(monitor, float("nan")))


def train_teacher(experiment: Experiment) -> Finished:
    """The teacher, from its weights or trained first by the same machinery."""
    recipe = experiment.recipe
    spec = recipe.teacher
    assert spec is not None

    def make(folder: Path) -> tuple[Artifact, Curve]:
        start = experiment.network(spec)
        if not spec.epochs:
            return start, []
        stage = Stage(epochs=spec.epochs, optimizer=spec.optimizer, schedule=spec.schedule)
        model, curve = experiment.train(start.model, None, stage, "teacher", folder)
        return replace(start, model=model), curve

    training = [plain(recipe.optimizer), plain(recipe.schedule), recipe.trainer] if spec.epochs else []
    return experiment.do("teacher", key(experiment.key, plain(spec), _content(spec.weights), training), make)


def train_alone(experiment: Experiment) -> Finished:
    """The student without a teacher, for as many epochs as all stages together: what distillation is compared with."""
    stages = list(experiment.recipe.stages.values())
    epochs = sum(stage.epochs for stage in stages)
    stage = replace(stages[-1], epochs=epochs, losses={}, task_weight=1.0, train=["*"])
    return train_stage(experiment, "alone", stage, None, None)


def train_student(experiment: Experiment, teacher: Finished | None) -> dict[str, Finished]:
    """Stage by stage; each starts from the student that the one before it left."""
    done: dict[str, Finished] = {}
    start = None
    for name, stage in experiment.recipe.stages.items():
        start = done[f"student/{name}"] = train_stage(experiment, f"student/{name}", stage, start, teacher)
    return done


def train_stage(
    experiment: Experiment, name: str, stage: Stage, start: Finished | None, teacher: Finished | None
) -> Finished:
    """One stage; the teacher counts only if the stage has losses that listen to it."""
    recipe = experiment.recipe
    teacher = teacher if stage.losses else None

    def make(folder: Path) -> tuple[Artifact, Curve]:
        artifact = start.artifact if start else experiment.network(recipe.student)
        model, curve = experiment.train(
            artifact.copy_model(), teacher.artifact.copy_model() if teacher else None, stage, name, folder
        )
        return replace(artifact, model=model), curve

    origin = start.key if start else [plain(recipe.student), _content(recipe.student.weights)]
    training = [plain(stage), plain(recipe.optimizer), plain(recipe.schedule), recipe.trainer]
    step_key = key(experiment.key, origin, training, teacher.key if teacher else None)
    return experiment.do(name, step_key, make)


def compress(experiment: Experiment, student: Finished, teacher: Finished | None) -> dict[str, Finished]:
    """Hook by hook; each takes the artifact that the one before it left."""
    done: dict[str, Finished] = {}
    before = student
    for number, (label, spec) in enumerate(experiment.recipe.compress.items(), start=1):
        name = f"compress/{number}-{label}"
        before = done[name] = apply_hook(experiment, name, spec, before, teacher)
    return done


def apply_hook(experiment: Experiment, name: str, spec: Hook, before: Finished, teacher: Finished | None) -> Finished:
    """One hook, and the training after it if the recipe asks for it."""
    stage = experiment.recipe.recovery(spec)

    def make(folder: Path) -> tuple[Artifact, Curve]:
        offers: dict[str, Callable[[], Any]] = {
            "artifact": lambda: before.artifact,
            "calibration": lambda: experiment.data.calibration(CALIBRATION_SAMPLES),
            "evaluate": lambda: experiment.evaluate,
            "example": lambda: experiment.example,
        }
        artifact = call(hook.find(spec.name), spec, offers)
        curve: Curve = []
        if stage:
            model = trainable(artifact)
            model, curve = experiment.train(
                model, teacher.artifact.copy_model() if teacher else None, stage, name, folder
            )
            artifact = settle(artifact, model)
        return replace(artifact, history=(*before.artifact.history, before.step)), curve

    recipe = experiment.recipe
    training = (
        [plain(recipe.optimizer), plain(recipe.schedule), recipe.trainer, teacher and teacher.key] if stage else []
    )
    return experiment.do(name, key(before.key, plain(spec), stage and plain(stage), training), make)


def export(experiment: Experiment, artifact: Artifact) -> dict[str, tuple[Step, Exported]]:
    """The artifact in every format that the recipe asks for, each checked against it on real samples."""
    done = {}
    samples = experiment.data.calibration(CALIBRATION_SAMPLES)
    for name, spec in experiment.recipe.export.items():
        started = time.perf_counter()
        offers = {
            "artifact": lambda: artifact,
            "folder": lambda: experiment.folder / "export",
            "samples": lambda: samples,
        }
        made = call(exporter.find(spec.name), spec, offers)
        small = deployable(artifact.model)
        done[f"export/{name}"] = (
            Step(
                step=f"export/{name}",
                params=measure.params(artifact.model),
                macs=measure.macs(small, experiment.example.inputs),
                bytes=made.path.stat().st_size,
                metrics=experiment.validate(made.predict),
                latency_ms={},
                seconds=time.perf_counter() - started,
            ),
            made,
        )
        console.print(
            f"[green]export/{name:<15}[/green] {made.path}, differs from the artifact by {made.difference:.1e}"
        )
    return done


def _content(weights: str | None) -> str | None:
    """Names what a checkpoint holds; for torchvision's weights their name does."""
    if weights and Path(weights).is_file():
        return hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return weights
