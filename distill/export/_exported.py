"""What every exporter answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Exported:
    """A file that another runtime runs, checked against the network it was made from."""

    path: Path
    predict: Callable[[Tensor], Tensor]
    """The file's own output for a batch of inputs, computed by its runtime."""
    difference: float
    """Largest difference from PyTorch's output, relative to the largest output."""
