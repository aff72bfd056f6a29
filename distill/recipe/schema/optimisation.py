"""The sections ``optimizer`` and ``schedule``."""

from dataclasses import dataclass, field
from typing import Literal

from distill.errors import RecipeError


@dataclass
class Optimizer:
    """``sgd`` with momentum, or ``adamw``."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    lr_factors: dict[str, float] = field(default_factory=dict)
    """Parameters of the student whose paths match a glob learn at so many times ``lr``; the first glob that matches
    counts."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise RecipeError(f"optimizer.lr is {self.lr}, but a learning rate is above 0")
        for pattern, times in self.lr_factors.items():
            if not times > 0:
                raise RecipeError(
                    f"optimizer.lr_factors: '{pattern}' is {times}, but a factor is above 0; 'train' of a stage says "
                    "what learns at all"
                )


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
