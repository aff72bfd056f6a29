"""The steps of a run and all that their results depend on, known before any of them is made.

A step's inputs are one dataclass; its key is the hash of that, so that no input can be forgotten.
"""

import hashlib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.recipe.plain import key, plain
from distill.recipe.schema import Hook, Network, Optimizer, Recipe, Schedule, Stage
from distill.registry.outside_code import outside_code


@dataclass(frozen=True)
class Foundation:
    """What every step of a run depends on."""

    version: str
    seed: int
    data: Mapping[str, Any]
    """Its section, but for where it is read."""
    fingerprint: str
    """Of the data set's content."""
    class_names: tuple[str, ...]
    """Artifacts hold them."""
    task: Mapping[str, Any]
    """Its section, what it compares with beside the data, and hashes of the files that it reads."""


@dataclass(frozen=True)
class NewNetwork:
    """A network with its first weights."""

    entry: Network
    weights: str | None
    """Hash of the checkpoint's content; torchvision's weights are known by their name."""


@dataclass(frozen=True)
class Training:
    """One stage, and what it takes from elsewhere in the recipe."""

    stage: Stage
    optimizer: Optimizer
    schedule: Schedule
    trainer: Mapping[str, Any]
    teachers: Mapping[str, str]
    """Keys of the steps that the teachers come from, by the teachers' names; of a peer, the hash of its checkpoint."""
    cache: list[Any] | None
    """The settings of the cache before the teacher that change its outputs."""


@dataclass(frozen=True)
class TrainingInputs:
    """A step that starts from a new network or from an earlier step's, and may train it."""

    foundation: Foundation
    start: NewNetwork | str
    """A new network, or the key of an earlier step."""
    training: Training | None


@dataclass(frozen=True)
class CompressionInputs:
    """A step that applies a hook, once or one of its rounds, and may train the network afterwards."""

    before: str
    """The key of the step that made the artifact."""
    hook: Hook
    progress: float
    """The part of the hook's rounds that is done with this one."""
    training: Training | None


@dataclass(frozen=True)
class StepSpec:
    """One step of a run."""

    name: str
    """The step's folder: "teacher", "baseline", "student/distill", "compress/1-svd"."""
    network: Network
    """The recipe entry of the network that it trains or compresses."""
    inputs: TrainingInputs | CompressionInputs
    start: str | None = None
    """The name of the step that it goes on from."""
    teachers: Mapping[str, str] | None = None
    """Names of the steps that its teachers come from, by the teachers' names; None: it has no teacher."""

    continued: bool = False
    """Whether a later stage goes on with the network, and so needs its auxiliary heads."""

    @cached_property
    def key(self) -> str:
        """Names all that the step's result depends on."""
        inputs = keyed(self.inputs)
        code = outside_code(inputs)
        return key(type(self.inputs).__name__, inputs, self.continued, *([code] if code else []))


class Line:
    """Every step of a recipe, in order.

    Args:
        recipe: what to do.
        foundation: what every step depends on.
    """

    def __init__(self, recipe: Recipe, foundation: Foundation) -> None:
        self.recipe, self.foundation = recipe, foundation
        self.teachers = {name: self._teacher(name) for name in recipe.all_teachers()}
        """By the names that stages call them by."""
        self.baseline = self._baseline()
        """The student without a teacher."""
        self.stages: dict[str, StepSpec] = {}
        """By the stages' names."""
        for name, stage in recipe.stages.items():
            self.stages[name] = self._stage(name, stage)
        self.compress = self._compression()
        """A step for every round of every hook."""

    @property
    def steps(self) -> list[StepSpec]:
        """All of them, in the order in which a run makes them."""
        baseline = [self.baseline] if self.has_baseline else []
        return [*self.teachers.values(), *baseline, *self.stages.values(), *self.compress]

    @property
    def has_baseline(self) -> bool:
        """Whether a run trains the student without a teacher as well: the recipe asks for it, and it would differ."""
        return self.recipe.baseline and any(map(learns_from_teacher, self.recipe.stages.values()))

    def _teacher(self, name: str) -> StepSpec:
        spec = self.recipe.all_teachers()[name]
        mix, ema = self.recipe.mix, self.recipe.ema
        stage = Stage(spec.epochs, optimizer=spec.optimizer, schedule=spec.schedule, mix=mix, ema=ema)
        inputs = TrainingInputs(self.foundation, new_network(spec), self._training(stage, {}) if spec.epochs else None)
        return StepSpec(teacher_step(name), spec, inputs)

    def _baseline(self) -> StepSpec:
        """As many epochs as all stages of the student together, so that only the teacher makes the difference."""
        stages = [stage for stage in self.recipe.stages.values() if not stage.student]
        last = stages[-1]
        epochs = sum(stage.epochs for stage in stages)
        alike = Stage(epochs, optimizer=last.optimizer, schedule=last.schedule, mix=last.mix, ema=last.ema)
        stage = replace(alike, keep=last.keep)
        inputs = TrainingInputs(self.foundation, new_network(self.recipe.student), self._training(stage, {}))
        return StepSpec("baseline", self.recipe.student, inputs)

    def _stage(self, name: str, stage: Stage) -> StepSpec:
        """A stage goes on with the student of the stage before it, or trains a network of its own."""
        earlier = [self.stages[other] for other in self.stages if not self.recipe.stages[other].student]
        start = earlier[-1] if earlier and not stage.student else None
        network = stage.student or self.recipe.student
        teachers = self._teachers_of(stage) if learns_from_teacher(stage) and not stage.peer else {}
        origin = start.key if start else new_network(network)
        inputs = TrainingInputs(self.foundation, origin, self._training(stage, teachers))
        continued = not stage.student and name != list(self.recipe.stages)[-1]
        start_name = start.name if start else None
        return StepSpec(f"student/{name}", network, inputs, start_name, _names(teachers), continued)

    def _compression(self) -> list[StepSpec]:
        steps: list[StepSpec] = []
        before = list(self.stages.values())[-1]
        for number, (label, hook) in enumerate(self.recipe.compress.items(), start=1):
            stage = self.recipe.recovery(hook)
            teachers = self._teachers_of(stage) if stage and stage.losses else {}
            training = self._training(stage, teachers) if stage else None
            for turn in range(1, hook.rounds + 1):
                name = f"compress/{number}-{label}" + (f"-round{turn}" if turn < hook.rounds else "")
                inputs = CompressionInputs(before.key, hook, turn / hook.rounds, training)
                before = StepSpec(name, self.recipe.student, inputs, before.name, _names(teachers))
                steps.append(before)
        return steps

    def _teachers_of(self, stage: Stage) -> dict[str, StepSpec]:
        known = self.teachers | self.stages
        return {name: known[name] for name in self.recipe.teachers_of(stage)}

    def _training(self, stage: Stage, teachers: Mapping[str, StepSpec]) -> Training:
        recipe = self.recipe
        keys = {name: step.key for name, step in teachers.items()}
        if stage.peer and stage.peer.weights:
            keys["peer"] = content_of(stage.peer.weights)
        cache = recipe.cache.effects if recipe.cache and teachers else None
        return Training(stage, recipe.optimizer, recipe.schedule, recipe.trainer, keys, cache)


def teacher_step(name: str) -> str:
    """The step that makes a teacher: ``teacher`` itself, or ``teachers/NAME``."""
    return name if name == "teacher" else f"teachers/{name}"


def learns_from_teacher(stage: Stage) -> bool:
    """Whether a stage learns from more than labels."""
    return bool(stage.losses or stage.blocks)


def _names(teachers: Mapping[str, StepSpec]) -> dict[str, str] | None:
    return {name: step.name for name, step in teachers.items()} or None


def new_network(entry: Network) -> NewNetwork:
    """What the first weights of a network depend on."""
    return NewNetwork(entry, entry.weights and content_of(entry.weights))


def keyed(section: Any) -> Any:
    """A typed section as plain data for a key: networks name what is in their weights' files, wherever those are."""
    section = deepcopy(section)
    for network in _networks(section):
        network.weights = network.weights and content_of(network.weights)
    return plain(section)


def _networks(section: Any) -> Iterator[Network]:
    if isinstance(section, Network):
        yield section
    elif is_dataclass(section):
        for field in fields(section):
            yield from _networks(getattr(section, field.name))
    elif isinstance(section, Mapping):
        for inner in section.values():
            yield from _networks(inner)


def content_of(file: str | Path) -> str:
    """Hash of a file's content; the name itself where there is no such file, as for torchvision's weights."""
    path = Path(file)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(file)
