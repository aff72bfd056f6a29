"""What a recipe may say: one dataclass per section, each with its types, defaults and rules."""

from distill.recipe.schema.cache import Cache
from distill.recipe.schema.components import Component, Network, TeacherNetwork
from distill.recipe.schema.cuts import Cuts
from distill.recipe.schema.mixing import Mix
from distill.recipe.schema.optimisation import Optimizer, Schedule
from distill.recipe.schema.recipe import Compression, Hook, Recipe, Tracking
from distill.recipe.schema.stage import Finetune, Loss, Stage

__all__ = [
    "Cache",
    "Component",
    "Compression",
    "Cuts",
    "Finetune",
    "Hook",
    "Loss",
    "Mix",
    "Network",
    "Optimizer",
    "Recipe",
    "Schedule",
    "Stage",
    "TeacherNetwork",
    "Tracking",
]
