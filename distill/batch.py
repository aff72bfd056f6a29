"""What data modules yield, and what reads it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor


class Batch(NamedTuple):  # a tuple, not a frozen dataclass: Lightning refuses to move those between devices
    """Samples on their way through teacher, student and losses."""

    inputs: Tensor
    """(batch, channels, height, width), normalised."""
    labels: Any
    """Whatever the task needs: class indices, boxes, flow fields, character sequences."""
    sample: Tensor
    """(batch,) position of each sample in the training set: key of caches and memory banks."""
    view: int | None = None
    """Which of its stored views each sample shows, if any; whoever changes the inputs of a batch takes this away."""


Predict = Callable[[Tensor], Tensor]
"""From a batch of inputs to outputs: a module in evaluation mode, or the session of an exported file."""
