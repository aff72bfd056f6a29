"""The whole of a recipe, and what its sections must agree on."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from distill import registry
from distill.errors import RecipeError
from distill.recipe.schema.cache import Cache
from distill.recipe.schema.components import Component, NetworkSection, TeacherNetwork, TeacherSection
from distill.recipe.schema.mixing import Mix
from distill.recipe.schema.optimisation import Optimizer, Schedule
from distill.recipe.schema.stage import Finetune, Stage
from distill.registry import did_you_mean
from distill.registry.ranges import Count, Seed, Share


@dataclass
class Hook(Component):
    """A compression hook, and how to train the network again after it."""

    finetune: Finetune | None = None
    rounds: Count = 1
    """How often the hook is applied, a little further each time, and the network trained again after each."""

    def __post_init__(self) -> None:
        if self.rounds > 1 and not self.finetune:
            raise RecipeError("rounds without training between them change nothing: add 'finetune', or remove 'rounds'")


@dataclass
class Compression:
    """The part of a recipe that needs no data set, no teacher and no training."""

    compress: dict[str, Annotated[Hook, registry.hook]] = field(default_factory=dict)
    export: dict[str, Annotated[Component, registry.exporter]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.compress:
            raise RecipeError("no hooks: a recipe that compresses has a section 'compress'")


@dataclass
class Tracking:
    """Weights & Biases. ``offline`` needs neither an account nor a network."""

    mode: Literal["online", "offline", "disabled"] = "offline"
    project: str = "distill"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Recipe:
    """One experiment, from data to exports."""

    seed: Seed = 0
    task: Annotated[Component, registry.task]
    data: Annotated[Component, registry.data]
    teacher: TeacherSection | None = None
    teachers: dict[str, TeacherSection] = field(default_factory=dict)
    """More teachers, by names that stages can call them by. Where no stage chooses, they teach together."""
    student: NetworkSection
    baseline: bool = True
    """Also train the same student without the teacher, for as many epochs as all stages together."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    mix: Mix | None = None
    """Blend training images, of the teacher, the baseline and all stages; a hook's ``finetune`` has its own, if any."""
    ema: Share | None = None
    """Keep a running average of the weights in place of the last ones, with this share of the old average after every
    step: 0.999. Of the teacher, the baseline and all stages. Polyak and Juditsky, Acceleration of Stochastic
    Approximation by Averaging, 1992."""
    stages: dict[str, Stage] = field(default_factory=dict)
    """Run in the order written; each starts from the student that the one before it left."""
    compress: dict[str, Annotated[Hook, registry.hook]] = field(default_factory=dict)
    """Applied in the order written."""
    export: dict[str, Annotated[Component, registry.exporter]] = field(default_factory=dict)
    channels_last: bool = True
    """Train in channels-last memory layout: faster for convolutions on CPUs and on GPUs with tensor cores."""
    compile: bool = False
    """Train compiled networks: faster steps, after a start-up of seconds on GPUs and minutes on CPUs."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Passed to Lightning's Trainer: devices, num_nodes, strategy, precision, ..."""
    cache: Cache | None = None
    """Compute the teacher's outputs once for each image, and keep them."""
    latency_batch_sizes: list[int] = field(default_factory=list)
    """Batch sizes at which latency is measured; without any, the task's."""
    tracking: Tracking = field(default_factory=Tracking)
    output: Path = Path("runs")
    """Where the run's folder is made."""

    recipe: str = "unnamed"
    """The recipe's name; set when it is loaded."""

    def recovery(self, hook: Hook) -> Stage | None:
        """The training after a hook; without losses of its own it learns from the teacher as the last stage did."""
        last = list(self.stages.values())[-1]
        if hook.finetune and not hook.finetune.losses:
            losses = {} if last.peer else last.losses  # the peer is gone
            weight = last.task_weight if losses else 1.0
            inherited = {"teacher": last.teacher, "teacher_bn": last.teacher_bn}
            return replace(hook.finetune, losses=losses, task_weight=weight, **inherited)
        return hook.finetune

    def all_teachers(self) -> dict[str, TeacherNetwork]:
        """The recipe's teachers by name; the one under ``teacher`` is called that."""
        return ({"teacher": self.teacher} if self.teacher else {}) | self.teachers

    def teachers_of(self, stage: Stage) -> dict[str, float]:
        """Whom a stage learns from, by name, with weights; empty if the recipe has no teacher."""
        return stage.teachers() or ({"teacher": 1.0} if self.teacher else dict.fromkeys(self.teachers, 1.0))

    def __post_init__(self) -> None:
        if wrong := [size for size in self.latency_batch_sizes if size < 1]:
            raise RecipeError(f"latency_batch_sizes: {wrong[0]}, but a batch has at least 1 image")
        if not self.stages:
            raise RecipeError("no stages: a recipe trains its student in at least one")
        if list(self.stages.values())[-1].student:
            raise RecipeError("the last stage trains a student of its own: the recipe's is never trained")
        for stage in self.stages.values():
            stage.mix, stage.ema = stage.mix or self.mix, stage.ema or self.ema
        if self.cache and any(stage.mix for stage in self.stages.values()):
            raise RecipeError("mix blends images anew in every step, so that no cache can hold the teacher's outputs")
        self._check_teachers()
        for key in ("num_classes", "channels"):
            teacher, student = getattr(self.teacher, key, None), getattr(self.student, key, None)
            if teacher is not None and student is not None and teacher != student:
                raise RecipeError(f"{key}: the teacher has {teacher}, the student {student}; leave it to the data")

    def _check_teachers(self) -> None:
        known = list(self.all_teachers())
        for name, stage in self.stages.items():
            for teacher in stage.teachers():
                if teacher not in known:
                    raise RecipeError(f"at stages.{name}: unknown teacher {did_you_mean(teacher, known)}")
            if name in self.all_teachers():
                raise RecipeError(f"at stages.{name}: a teacher has that name too; rename the stage")
            known.append(name)
        for name, hook in self.compress.items():
            for teacher in hook.finetune.teachers() if hook.finetune else ():
                if teacher not in known:
                    raise RecipeError(f"at compress.{name}.finetune: unknown teacher {did_you_mean(teacher, known)}")
