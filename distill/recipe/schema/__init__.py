"""What a recipe may say: one dataclass per section, each with its types, defaults and rules."""

from distill.schema.cache import Cache
from distill.schema.components import Component, Network, TeacherNetwork
from distill.schema.cuts import Cuts
from distill.schema.optimisation import Optimizer, Schedule
from distill.schema.recipe import Hook, Recipe, Tracking
from distill.schema.stage import Finetune, Loss, Stage

__all__ = [
    "Cache",
    "Component",
    "Cuts",
    "Finetune",
    "Hook",
    "Loss",
    "Network",
    "Optimizer",
    "Recipe",
    "Schedule",
    "Stage",
    "TeacherNetwork",
    "Tracking",
]
