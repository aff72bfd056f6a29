"""What a recipe may say: one dataclass per section, each with its types, defaults and rules."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING

from distill.errors import RecipeError


@dataclass
class Component:
    """A named component; its own settings stand beside these fields."""

    name: str = MISSING


@dataclass
class Optimizer:
    """``sgd`` with momentum, or ``adamw``."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise RecipeError(f"optimizer.lr is {self.lr}, but a learning rate is above 0")


@dataclass
class Schedule:
    """How the learning rate moves over a training run, one value per step."""

    name: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    """The learning rate rises linearly from 0 over this many epochs."""
    milestones: list[int] = field(default_factory=list)
    """For ``step``: epochs after which the learning rate is multiplied by ``gamma``."""
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if bool(self.milestones) != (self.name == "step"):
            raise RecipeError(f"schedule '{self.name}' and milestones {self.milestones} do not fit: 'step' needs them")


@dataclass
class Loss(Component):
    """One distillation term. ``name`` defaults to its key in ``losses``."""

    weight: float = 1.0
    warmup_epochs: int = 0
    """The weight rises linearly to its value over this many epochs."""
    student: list[str] = field(default_factory=list)
    """Module paths of the student's taps. Without any, its output."""
    teacher: list[str] = field(default_factory=list)
    """Module paths of the teacher's taps. Without any, its output."""
    taps: Literal["stages"] | None = None
    """``stages``: tap every stage that the two networks name, early to late."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise RecipeError(f"weight is {self.weight}, but a loss weight is a finite number")
        if self.taps and (self.student or self.teacher):
            raise RecipeError("'taps: stages' already names the taps: remove 'student' and 'teacher', or 'taps'")


@dataclass
class Stage:
    """One training run over some of the student's parameters."""

    epochs: int = MISSING
    task_weight: float = 1.0
    losses: dict[str, Loss] = field(default_factory=dict)
    """Distillation terms. Under a hook's ``finetune``, none means those of the last stage."""
    train: list[str] = field(default_factory=lambda: ["*"])
    """Glob patterns of the student parameters to update; the others stay as they are."""
    keep: Literal["last", "best"] = "last"
    """Which epoch's weights to keep; ``best`` is decided by the task's monitor on the validation split."""
    optimizer: Optimizer | None = None
    """Without one, the recipe's."""
    schedule: Schedule | None = None
    """Without one, the recipe's."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise RecipeError(f"epochs is {self.epochs}, but a stage has at least 1")
        if not self.losses and not self.task_weight:
            raise RecipeError("nothing to train for: task_weight is 0 and there are no losses")


@dataclass
class Finetune(Stage):
    """Recovery training after a hook; without losses of its own it uses those of the last stage."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise RecipeError(f"epochs is {self.epochs}, but fine-tuning has at least 1")


@dataclass
class Network(Component):
    """A network by name; ``num_classes`` and ``channels`` follow from the data unless given."""

    weights: str | None = None
    """Checkpoint file to start from, or the name of torchvision's weights (``IMAGENET1K_V1``)."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """For torchvision's networks and a ``package.module:attribute`` from outside: passed to the call as they are."""


@dataclass
class TeacherNetwork(Network):
    """The network to learn from. With ``epochs`` it is trained first, from its weights or from nothing."""

    epochs: int = 0
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if not self.weights and self.epochs < 1:
            raise RecipeError(
                "the teacher has no weights: give teacher.weights=FILE, or teacher.epochs=N to train it first"
            )


@dataclass
class Hook(Component):
    """A compression hook, and how to train the network again after it."""

    finetune: Finetune | None = None


@dataclass
class Tracking:
    """Weights & Biases. ``offline`` needs neither an account nor a network."""

    mode: Literal["online", "offline", "disabled"] = "offline"
    project: str = "distill"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class Recipe:
    """One experiment, from data to exports."""

    seed: int = 0
    task: Component = field(default_factory=Component)
    data: Component = field(default_factory=Component)
    teacher: TeacherNetwork | None = None
    student: Network = field(default_factory=Network)
    baseline: bool = True
    """Also train the same student without the teacher, for as many epochs as all stages together."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    stages: dict[str, Stage] = field(default_factory=dict)
    """Run in the order written; each starts from the student that the one before it left."""
    compress: dict[str, Hook] = field(default_factory=dict)
    """Applied in the order written."""
    export: dict[str, Component] = field(default_factory=dict)
    channels_last: bool = True
    """Train in channels-last memory layout: faster for convolutions on CPUs and on GPUs with tensor cores."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Passed to Lightning's Trainer: devices, num_nodes, strategy, precision, ..."""
    tracking: Tracking = field(default_factory=Tracking)
    output: Path = Path("runs")
    """Where the run's folder is made."""

    recipe: str = "unnamed"
    """The recipe's name; set when it is loaded."""

    def recovery(self, hook: Hook) -> Stage | None:
        """The training after a hook; without losses of its own it learns from the teacher as the last stage did."""
        last = list(self.stages.values())[-1]
        if hook.finetune and not hook.finetune.losses:
            return replace(hook.finetune, losses=last.losses, task_weight=last.task_weight)
        return hook.finetune

    def __post_init__(self) -> None:
        if not self.stages:
            raise RecipeError("no stages: a recipe trains its student in at least one")
        if not self.teacher and any(stage.losses for stage in self.stages.values()):
            raise RecipeError("the stages have distillation losses, but the recipe has no teacher")
        for key in ("num_classes", "channels"):
            teacher, student = getattr(self.teacher, key, None), getattr(self.student, key, None)
            if teacher is not None and student is not None and teacher != student:
                raise RecipeError(f"{key}: the teacher has {teacher}, the student {student}; leave it to the data")
