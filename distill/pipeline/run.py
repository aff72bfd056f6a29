"""The straight line: recipe -> data -> teacher -> student, stage by stage -> hooks -> exports -> report."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.text import Text

from distill.artifact import Artifact
from distill.artifact.step import Step
from distill.artifact.straight_through import finalize, trainable
from distill.console import console
from distill.errors import ExportError
from distill.export import exporter
from distill.export.exported import Exported
from distill.measure.costs import costs
from distill.measure.evaluation import to_accelerator
from distill.models.surgery import deployable
from distill.pipeline.apply_hook import apply_hook
from distill.pipeline.build import without_auxiliary
from distill.pipeline.experiment import Experiment
from distill.pipeline.final_report import write_final_report
from distill.pipeline.step_store import Finished
from distill.pipeline.steps import CompressionInputs, StepSpec
from distill.recipe.schema import Recipe
from distill.registry import call
from distill.training.fit import Curve, OnEpoch

CALIBRATION_SAMPLES = 512


@dataclass(frozen=True)
class Result:
    """What a run leaves behind."""

    folder: Path
    steps: tuple[Step, ...]
    monitor: str
    """"val/accuracy"."""
    value: float
    """The monitor of the compressed student on the validation split: what a sweep optimises. NaN without a split."""


def run(recipe: Recipe, *, on_epoch: OnEpoch | None = None) -> Result:
    """Do all that a recipe says; finished steps of earlier runs are reused.

    Args:
        recipe: from `distill.recipe.loading.load`.
        on_epoch: called after every epoch with the step's name, the epoch and its metrics; may raise to stop.

    Raises:
        DistillError: see `distill.errors`.
    """
    with Experiment.open(recipe, on_epoch) as experiment:
        teachers = train_teachers(experiment)
        made = {experiment.line.teachers[name].name: done for name, done in teachers.items()}
        if experiment.line.has_baseline:
            made["baseline"] = train_baseline(experiment)
        stages = train_student(experiment, teachers)
        made |= {f"assistant/{name}": stages[name] for name, stage in recipe.stages.items() if stage.student}
        made["student"] = list(stages.values())[-1]
        made |= compress(experiment, made["student"], teachers | stages)
        final = list(made.values())[-1]
        final.artifact.save(experiment.folder / "student.safetensors")
        exported, failures = export(experiment, final.artifact)
        curves = {f"student/{name}": done for name, done in stages.items() if not recipe.stages[name].student}
        steps = write_final_report(experiment, made, curves, exported)
        if failures:
            raise ExportError("; ".join(map(str, failures)))
        monitored = experiment.monitored
        return Result(experiment.folder, steps, monitored, final.step.metrics.get(monitored, float("nan")))


def train_teachers(experiment: Experiment) -> dict[str, Finished]:
    """Every teacher of the recipe, by the name that stages call it by: from its weights, or trained first."""
    return {name: training_step(experiment, step, {}) for name, step in experiment.line.teachers.items()}


def train_baseline(experiment: Experiment) -> Finished:
    """The student without a teacher, for as many epochs as all of its stages: what distillation is compared with."""
    return training_step(experiment, experiment.line.baseline, {})


def train_student(experiment: Experiment, teachers: Mapping[str, Finished]) -> dict[str, Finished]:
    """Stage by stage, by name; each starts from the student of the one before it, or trains a network of its own."""
    done = {experiment.line.teachers[name].name: teacher for name, teacher in teachers.items()}
    for step in experiment.line.stages.values():
        done[step.name] = training_step(experiment, step, done)
    return {name: done[step.name] for name, step in experiment.line.stages.items()}


def training_step(experiment: Experiment, step: StepSpec, done: Mapping[str, Finished]) -> Finished:
    """A network from a checkpoint, or after one stage of training.

    Args:
        experiment: the run.
        step: what to do.
        done: earlier steps by name, among them the one that this goes on from and those of its teachers.
    """
    training = step.inputs.training

    def make(folder: Path) -> tuple[Artifact, Curve]:
        artifact = done[step.start].artifact if step.start else experiment.network(step.network)
        curve: Curve = []
        if training:
            teachers = {name: done[source] for name, source in (step.teachers or {}).items()}
            model, plans, curve = experiment.train(artifact.copy_model(), training.stage, step.name, folder, teachers)
            artifact = replace(artifact, model=model, plans=(*artifact.plans, *plans))
        return artifact if step.continued else without_auxiliary(artifact, experiment.example.inputs), curve

    return experiment.do(step.name, step.key, make)


def compress(experiment: Experiment, student: Finished, teachers: Mapping[str, Finished]) -> dict[str, Finished]:
    """Hook by hook, round by round, by the step's name; each takes the artifact of the one before it."""
    done: dict[str, Finished] = {}
    before = student
    for step in experiment.line.compress:
        known = {name: teachers[name] for name in step.teachers or {}}
        before = done[step.name] = compression_step(experiment, step, before, known)
    return done


def compression_step(
    experiment: Experiment, step: StepSpec, before: Finished, teachers: Mapping[str, Finished]
) -> Finished:
    """One hook, or one round of it, and the training after it if the recipe asks for it."""
    inputs = step.inputs
    assert isinstance(inputs, CompressionInputs)

    def make(folder: Path) -> tuple[Artifact, Curve]:
        artifact = apply_hook(
            inputs.hook,
            before.artifact,
            experiment.data,
            experiment.task,
            monitor=experiment.monitor,
            samples=CALIBRATION_SAMPLES,
            progress=inputs.progress,
        )
        curve: Curve = []
        if inputs.training:
            model, _, curve = experiment.train(trainable(artifact), inputs.training.stage, step.name, folder, teachers)
            artifact = no_worse(experiment, step.name, artifact, finalize(artifact, model))
        return replace(artifact, history=(*before.artifact.history, before.step)), curve

    return experiment.do(step.name, step.key, make)


def no_worse(experiment: Experiment, name: str, before: Artifact, after: Artifact) -> Artifact:
    """The artifact after fine-tuning, or the one before it if that is better on the validation split."""
    monitored = experiment.monitored
    was, now = (experiment.validate(to_accelerator(deployable(one.model))).get(monitored) for one in (before, after))
    if was is None or now is None or experiment.task.no_worse(now, was):
        return after
    console.print(f"{name:<22} fine-tuning is undone: {monitored} was {was:.4f} before it and {now:.4f} after")
    return before


def export(experiment: Experiment, artifact: Artifact) -> tuple[dict[str, tuple[Step, Exported]], list[ExportError]]:
    """The artifact in every format that the recipe asks for, each checked against it on real samples; and why others
    cannot be made, which is no reason to lose these."""
    done, failures = {}, []
    samples = experiment.data.calibration(CALIBRATION_SAMPLES)
    for name, spec in experiment.recipe.export.items():
        started = time.perf_counter()
        injectable = {
            "artifact": lambda: artifact,
            "folder": lambda: experiment.folder / "export",
            "samples": lambda: samples,
            "task": lambda: experiment.task,
        }
        try:
            made = call(exporter.find(spec.name), spec, injectable)
        except ExportError as error:
            failures.append(error)
            continue
        done[f"export/{name}"] = (
            Step(
                step=f"export/{name}",
                **costs(artifact, experiment.example.inputs),
                bytes=made.nbytes,
                metrics=experiment.validate(made.predict),
                latency_ms={},
                seconds=time.perf_counter() - started,
            ),
            made,
        )
        same = f"{experiment.task.agreement_name} {100 * made.agreement:.1f} %"
        about = f" {made.path}, {made.sizes()}, differs from the artifact by {made.difference:.1e}, {same}"
        console.print(Text.assemble((f"export/{name:<15}", "green"), about))
    return done, failures
