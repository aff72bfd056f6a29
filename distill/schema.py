"""What a recipe may say: one dataclass per section, each with its types, defaults and rules."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING

from distill.cuts import Cuts
from distill.errors import RecipeError
from distill.registry import did_you_mean


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
class Network(Component):
    """A network by name; ``num_classes`` and ``channels`` follow from the data unless given."""

    weights: str | None = None
    """Checkpoint file to start from, or the name of torchvision's weights (``IMAGENET1K_V1``)."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """For torchvision's networks and a ``package.module:attribute`` from outside: passed to the call as they are."""


@dataclass
class Stage:
    """One training run over some of the student's parameters."""

    epochs: int = MISSING
    task_weight: float = 1.0
    losses: dict[str, Loss] = field(default_factory=dict)
    """Distillation terms. Under a hook's ``finetune``, none means those of the last stage."""
    blocks: Cuts | None = None
    """Train block by block: each learns on its own to put out what the teacher puts out at its end."""
    teacher: Any = None
    """Whom to learn from: ``teacher``, one of ``teachers``, or an earlier stage, whose network then teaches. Several,
    as a list or with their weights as a mapping, teach as an ensemble: their logits are averaged, and ``name.path``
    taps one of them. Without any, the recipe's teacher, or all of its ``teachers``."""
    teacher_bn: Literal["eval", "train"] = "eval"
    """``train``: the teacher normalises by each batch, as some papers do; its running statistics never move."""
    student: Network | None = None
    """Train this network, from its first weights, in place of the recipe's student: an assistant, or an elder self.
    The next stage goes on with the recipe's student, and may learn from this one."""
    peer: Network | None = None
    """A second student that learns beside the first one, each with the other as its teacher, and is then left."""
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
        self._check_trains()
        if self.peer and self.teacher:
            raise RecipeError("a stage learns from its teacher or from its peer: remove one of them")
        if self.peer and self.blocks:
            raise RecipeError("blocks follow a teacher that has learned already: remove 'peer' or 'blocks'")
        if self.peer and not self.losses:
            raise RecipeError("the peer teaches nothing: give the stage losses, for example kd: {temperature: 1}")
        self.teachers()

    def teachers(self) -> dict[str, float]:
        """The names of the stage's teachers and their weights; empty if the recipe's teach."""
        named = self.teacher
        match named:
            case None:
                return {}
            case str():
                return {named: 1.0}
            case list() if named and all(isinstance(name, str) for name in named):
                return dict.fromkeys(named, 1.0)
            case dict() if named and all(isinstance(w, int | float) and w > 0 for w in named.values()):
                return {str(name): float(weight) for name, weight in named.items()}
        raise RecipeError(f"teacher is {named!r}, but is a name, a list of names, or names with weights above 0")

    def _check_trains(self) -> None:
        if not self.losses and not self.task_weight and not self.blocks:
            raise RecipeError("nothing to train for: task_weight is 0 and there are neither losses nor blocks")


@dataclass
class Finetune(Stage):
    """Recovery training after a hook; without losses of its own it uses those of the last stage."""

    def __post_init__(self) -> None:
        if self.student or self.peer:
            raise RecipeError("fine-tuning trains the student alone: remove 'student' and 'peer'")
        super().__post_init__()

    def _check_trains(self) -> None:
        """Without losses and without the task it still trains for what the last stage trained for."""


@dataclass
class TeacherNetwork(Network):
    """The network to learn from. With ``epochs`` it is trained first, from its weights or from nothing."""

    epochs: int = 0
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    mean: list[float] | None = None
    """Of its own images, per channel, for pixels from 0 to 1. Without, what its weights are known to go with, or the
    data's; the same for ``std``."""
    std: list[float] | None = None
    image_size: int | None = None
    """Height and width of its own images. Without, that in its weights' file if it is one of ours, or the data's."""

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
class Cache:
    """The teacher's answers, kept on disk and read instead of computed.

    In epoch e the training images of a stage with a teacher look as in epoch ``e % views``.
    """

    views: int = 4
    """How many augmentations of each image to keep. Without augmentation 1 is enough."""
    dtype: Literal["float16", "float32"] = "float16"
    top_k: int | None = None
    """Of the teacher's output keep only the largest logits; the other classes share what probability is left."""
    folder: Path | None = None
    """Without one, one under ``output`` that runs with the same teacher and data share."""

    def __post_init__(self) -> None:
        for name in ("views", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"cache.{name} is {value}, but is at least 1")

    @property
    def effects(self) -> list[Any]:
        """What of this changes a student: the images that it sees, and how exactly the teacher is remembered."""
        return [self.views, self.dtype, self.top_k]


@dataclass
class Recipe:
    """One experiment, from data to exports."""

    seed: int = 0
    task: Component = field(default_factory=Component)
    data: Component = field(default_factory=Component)
    teacher: TeacherNetwork | None = None
    teachers: dict[str, TeacherNetwork] = field(default_factory=dict)
    """More teachers, by names that stages can call them by. Where no stage chooses, they teach together."""
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
    compile: bool = False
    """Train compiled networks: faster steps, after a start-up of seconds on GPUs and minutes on CPUs."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Passed to Lightning's Trainer: devices, num_nodes, strategy, precision, ..."""
    cache: Cache | None = None
    """Ask the teacher once about each image, and remember its answers."""
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
            return replace(hook.finetune, losses=losses, task_weight=weight, teacher=last.teacher)
        return hook.finetune

    def all_teachers(self) -> dict[str, TeacherNetwork]:
        """The recipe's teachers by name; the one under ``teacher`` is called that."""
        return ({"teacher": self.teacher} if self.teacher else {}) | self.teachers

    def teachers_of(self, stage: Stage) -> dict[str, float]:
        """Whom a stage learns from, by name, with weights; empty if the recipe has no teacher."""
        return stage.teachers() or ({"teacher": 1.0} if self.teacher else dict.fromkeys(self.teachers, 1.0))

    def __post_init__(self) -> None:
        if not self.stages:
            raise RecipeError("no stages: a recipe trains its student in at least one")
        if list(self.stages.values())[-1].student:
            raise RecipeError("the last stage trains a student of its own: the recipe's is never trained")
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
