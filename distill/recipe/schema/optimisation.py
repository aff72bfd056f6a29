"""The sections ``optimizer`` and ``schedule``."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from distill.errors import RecipeError
from distill.registry.ranges import Count, NonNegative, Positive, Range

Momentum = Annotated[float, Range(at_least=0, below=1)]


@dataclass
class Optimizer:
    """``sgd`` with momentum, or ``adamw``."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.05
    momentum: Momentum = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 5e-4
    lr_factors: dict[str, Positive] = field(default_factory=dict)
    """Parameters of the student whose paths match a glob learn at so many times ``lr``; the first glob that matches
    counts."""

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise RecipeError("nesterov needs a momentum above 0")


@dataclass
class Schedule:
    """How the learning rate moves over a training run, one value per step."""

    name: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: NonNegative = 0.0
    """The learning rate rises linearly from 0 over this many epochs."""
    milestones: list[Count] = field(default_factory=list)
    """For ``step``: epochs after which the learning rate is multiplied by ``gamma``."""
    gamma: Positive = 0.1

    def __post_init__(self) -> None:
        if bool(self.milestones) != (self.name == "step"):
            raise RecipeError(f"schedule '{self.name}' and milestones {self.milestones} do not fit: 'step' needs them")
