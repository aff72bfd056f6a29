"""How one training step goes. Each kind of stage is one object: plain, mutual or blockwise training."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from distill.batch import Batch
from distill.models.auxiliary import auxiliary_weights
from distill.models.taps import Features, Taps
from distill.recipe.schema import Loss, Stage
from distill.tasks import Task
from distill.training.loss_checks import refuse_unfit
from distill.training.loss_terms import unique
from distill.training.output_parts import PartTaps
from distill.training.stochastic_depth import StochasticDepth
from distill.training.teacher import Teacher


@dataclass(frozen=True)
class Setting:
    """What every method is built from."""

    task: Task
    stage: Stage
    example: Batch
    """A few samples: the shapes of all taps follow from them."""
    injectable: Mapping[str, Any] = field(default_factory=dict)
    """What losses may ask for when they are built, beside features."""
    cached: Callable[[Teacher], nn.Module] = lambda teacher: teacher
    """Puts a cache before a teacher."""


class Method(nn.Module, ABC):
    """A student, and how its loss comes about.

    Args:
        student: the network to train, in place.
        losses: the stage's, their taps written out.
        setting: task, stage, and the example that shapes follow from.
    """

    terms: nn.ModuleDict
    """Loss terms by their keys in the recipe."""
    teacher: nn.Module | None
    """A `Teacher`, or a cache before one."""

    def __init__(self, student: nn.Module, losses: Mapping[str, Loss], setting: Setting) -> None:
        super().__init__()
        self.task, self.task_weight = setting.task, setting.stage.task_weight
        refuse_unfit(losses, self.task, setting.example)
        self.student = PartTaps(student.eval(), unique(loss.student for loss in losses.values()), self.task.parts)
        depth = setting.stage.depth()
        self.depth = StochasticDepth(student, setting.example.inputs, depth.survival, depth.scaling) if depth else None

    @abstractmethod
    def step(self, batch: Batch, epoch: float, progress: float) -> dict[str, Tensor]:
        """The weighted terms of the loss on a batch, by name; the loss is their sum.

        Args:
            batch: of training samples.
            epoch: epochs done, the present one counted whole.
            progress: the part of the stage that is done, from 0 to 1.
        """

    def learning(self) -> list[nn.Module]:
        """The networks in training, and what losses learn beside them."""
        return [child for name, child in self.named_children() if name != "teacher"]

    @abstractmethod
    def to_compile(self) -> list[nn.Module]:
        """The networks that `torch.compile` may have."""

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """With stochastic depth, the student runs without some of its residual blocks."""
        if self.depth is None:
            yield
        else:
            with self.depth.drawn():
                yield

    def task_terms(self, network: Taps, output: Tensor, features: Features, batch: Batch) -> dict[str, Tensor]:
        """The task's loss of the output, and of the network's auxiliary outputs, each with its weight."""
        if not self.task_weight:
            return {}
        values = self.task.terms(output, batch)
        for name, weight in auxiliary_weights(network.model).items():
            if name in features:
                values[name] = weight * self.task.total(features[name], batch)
        return {name: self.task_weight * value for name, value in values.items()}

    def loss_terms(self, student: Features, teacher: Features, batch: Batch, epoch: float) -> dict[str, Tensor]:
        """The stage's losses; no gradient reaches the teacher."""
        fixed = {path: feature.detach() for path, feature in teacher.items()}
        return {key: term(student, fixed, batch, epoch) for key, term in self.terms.items()}
