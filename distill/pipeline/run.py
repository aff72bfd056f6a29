"""The straight line: recipe -> data -> teacher -> student, stage by stage -> hooks -> exports -> report."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distill.artifact import Artifact
from distill.artifact.step import Step
from distill.artifact.straight_through import finalize, trainable
from distill.console import console
from distill.export import exporter
from distill.export.exported import Exported
from distill.measure.evaluation import to_accelerator
from distill.models import cost
from distill.models.surgery import deployable
from distill.pipeline.apply_hook import apply_hook
from distill.pipeline.build import without_auxiliary
from distill.pipeline.experiment import Experiment
from distill.pipeline.final_report import write_final_report
from distill.pipeline.step_store import Finished
from distill.recipe.plain import key, plain
from distill.recipe.schema import Hook, Recipe, Stage, TeacherNetwork
from distill.registry import call
from distill.training.fit import Curve, OnEpoch

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
        recipe: from `distill.recipe.loading.load`.
        on_epoch: called after every epoch with the step's name, the epoch and its metrics; may raise to stop.

    Raises:
        DistillError: see `distill.errors`.
    """
    with Experiment.open(recipe, on_epoch) as experiment:
        teachers = train_teachers(experiment)
        made = {step_of(name): done for name, done in teachers.items()}
        if recipe.baseline and any(map(learns_from_teacher, recipe.stages.values())):
            made["alone"] = train_baseline(experiment)
        stages = train_student(experiment, teachers)
        made |= {f"assistant/{name}": stages[name] for name, stage in recipe.stages.items() if stage.student}
        made["student"] = list(stages.values())[-1]
        made |= compress(experiment, made["student"], teachers | stages)
        final = list(made.values())[-1]
        final.artifact.save(experiment.folder / "student.safetensors")
        exported = export(experiment, final.artifact)
        curves = {f"student/{name}": done for name, done in stages.items() if not recipe.stages[name].student}
        steps = write_final_report(experiment, made, curves, exported)
        monitor = experiment.task.monitor
        return Result(experiment.folder, steps, monitor, final.step.metrics.get(monitor, float("nan")))


def train_teachers(experiment: Experiment) -> dict[str, Finished]:
    """Every teacher of the recipe, by the name that stages call it by."""
    specs = experiment.recipe.all_teachers()
    return {name: train_teacher(experiment, step_of(name), spec) for name, spec in specs.items()}


def step_of(teacher: str) -> str:
    """The step that makes a teacher: ``teacher`` itself, or ``teachers/NAME``."""
    return teacher if teacher == "teacher" else f"teachers/{teacher}"


def train_teacher(experiment: Experiment, name: str, spec: TeacherNetwork) -> Finished:
    """A teacher, from its weights or trained first by the same machinery."""
    recipe = experiment.recipe

    def make(folder: Path) -> tuple[Artifact, Curve]:
        start = experiment.network(spec)
        if not spec.epochs:
            return without_auxiliary(start, experiment.example.inputs), []
        stage = Stage(epochs=spec.epochs, optimizer=spec.optimizer, schedule=spec.schedule)
        trained = experiment.train(start.model, stage, name, folder, {})
        artifact = replace(start, model=trained.student)
        return without_auxiliary(artifact, experiment.example.inputs), trained.curve

    training = [plain(recipe.optimizer), plain(recipe.schedule), recipe.trainer] if spec.epochs else []
    return experiment.do(name, key(experiment.key, plain(spec), _content(spec.weights), training), make)


def learns_from_teacher(stage: Stage) -> bool:
    """Whether a stage has more to learn from than labels."""
    return bool(stage.losses or stage.blocks)


def train_baseline(experiment: Experiment) -> Finished:
    """The student without a teacher, for as many epochs as all of its stages: what distillation is compared with."""
    stages = [stage for stage in experiment.recipe.stages.values() if not stage.student]
    last = stages[-1]
    stage = Stage(
        epochs=sum(stage.epochs for stage in stages), keep=last.keep, optimizer=last.optimizer, schedule=last.schedule
    )
    return train_stage(experiment, "alone", stage, None, {})


def train_student(experiment: Experiment, teachers: Mapping[str, Finished]) -> dict[str, Finished]:
    """Stage by stage; each starts from the student that the one before it left, or trains one of its own."""
    done: dict[str, Finished] = {}
    start = None
    known = dict(teachers)
    for name, stage in experiment.recipe.stages.items():
        listens = {teacher: known[teacher] for teacher in experiment.recipe.teachers_of(stage)}
        begins = None if stage.student else start
        done[name] = known[name] = train_stage(experiment, f"student/{name}", stage, begins, listens)
        start = start if stage.student else done[name]
    return done


def train_stage(
    experiment: Experiment, name: str, stage: Stage, start: Finished | None, teachers: Mapping[str, Finished]
) -> Finished:
    """One stage; teachers count only if it has losses that listen to them."""
    recipe = experiment.recipe
    network = stage.student or recipe.student
    teachers = teachers if learns_from_teacher(stage) and not stage.peer else {}

    def make(folder: Path) -> tuple[Artifact, Curve]:
        artifact = start.artifact if start else experiment.network(network)
        trained = experiment.train(artifact.copy_model(), stage, name, folder, teachers)
        artifact = replace(artifact, model=trained.student, plans=(*artifact.plans, *trained.plans))
        if is_last(recipe, stage):
            artifact = without_auxiliary(artifact, experiment.example.inputs)
        return artifact, trained.curve

    origin = start.key if start else [plain(network), _content(network.weights)]
    training = [plain(stage), plain(recipe.optimizer), plain(recipe.schedule), recipe.trainer]
    step_key = key(experiment.key, origin, training, experiment.heard(teachers))
    return experiment.do(name, step_key, make)


def is_last(recipe: Recipe, stage: Stage) -> bool:
    """Whether no later stage goes on with the network that this one trains."""
    continued = [stage for stage in recipe.stages.values() if not stage.student][:-1]
    return all(stage is not one for one in continued)


def compress(experiment: Experiment, student: Finished, teachers: Mapping[str, Finished]) -> dict[str, Finished]:
    """Hook by hook, round by round; each takes the artifact that the one before it left."""
    done: dict[str, Finished] = {}
    before = student
    for number, (label, spec) in enumerate(experiment.recipe.compress.items(), start=1):
        for turn in range(1, spec.rounds + 1):
            name = f"compress/{number}-{label}" + (f"-round{turn}" if turn < spec.rounds else "")
            before = done[name] = compression_step(
                experiment, name, spec, before, teachers, progress=turn / spec.rounds
            )
    return done


def compression_step(
    experiment: Experiment, name: str, spec: Hook, before: Finished, teachers: Mapping[str, Finished], progress: float
) -> Finished:
    """One hook, or one round of it, and the training after it if the recipe asks for it."""
    recipe = experiment.recipe
    stage = recipe.recovery(spec)
    listens = {name: teachers[name] for name in recipe.teachers_of(stage)} if stage and stage.losses else {}

    def make(folder: Path) -> tuple[Artifact, Curve]:
        artifact = apply_hook(
            spec,
            before.artifact,
            experiment.data,
            experiment.task,
            evaluate=experiment.evaluate,
            samples=CALIBRATION_SAMPLES,
            progress=progress,
        )
        curve: Curve = []
        if stage:
            model, _, curve = experiment.train(trainable(artifact), stage, name, folder, listens)
            artifact = no_worse(experiment, name, artifact, finalize(artifact, model))
        return replace(artifact, history=(*before.artifact.history, before.step)), curve

    heard = experiment.heard(listens)
    training = [plain(recipe.optimizer), plain(recipe.schedule), recipe.trainer, heard] if stage else []
    step_key = key(before.key, plain(spec), progress, stage and plain(stage), training)
    return experiment.do(name, step_key, make)


def no_worse(experiment: Experiment, name: str, before: Artifact, after: Artifact) -> Artifact:
    """What fine-tuning made of an artifact, or the artifact if the validation split says that it was better."""
    monitor = experiment.task.monitor
    was, now = (experiment.validate(to_accelerator(deployable(one.model))).get(monitor) for one in (before, after))
    if was is None or now is None or now >= was:
        return after
    console.print(f"{name:<22} fine-tuning is undone: {monitor} was {was:.4f} before it and {now:.4f} after")
    return before


def export(experiment: Experiment, artifact: Artifact) -> dict[str, tuple[Step, Exported]]:
    """The artifact in every format that the recipe asks for, each checked against it on real samples."""
    done = {}
    samples = experiment.data.calibration(CALIBRATION_SAMPLES)
    for name, spec in experiment.recipe.export.items():
        started = time.perf_counter()
        injectable = {
            "artifact": lambda: artifact,
            "folder": lambda: experiment.folder / "export",
            "samples": lambda: samples,
        }
        made = call(exporter.find(spec.name), spec, injectable)
        small = deployable(artifact.model)
        done[f"export/{name}"] = (
            Step(
                step=f"export/{name}",
                params=cost.params(artifact.model),
                macs=cost.macs(small, experiment.example.inputs),
                bytes=made.nbytes,
                metrics=experiment.validate(made.predict),
                latency_ms={},
                seconds=time.perf_counter() - started,
            ),
            made,
        )
        console.print(
            f"[green]export/{name:<15}[/green] {made.path}, differs from the artifact by {made.difference:.1e}, "
            f"same class for {100 * made.agreement:.1f} %"
        )
    return done


def _content(weights: str | None) -> str | None:
    """Names what a checkpoint holds; for torchvision's weights their name does."""
    if weights and Path(weights).is_file():
        return hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return weights
