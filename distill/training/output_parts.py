"""Taps on parts of a network's output that the task names: ``":classes"`` beside the output ``""``."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from distill.errors import TapError
from distill.models.taps import Features, Taps
from distill.registry import did_you_mean

PART = ":"


class PartTaps(Taps):
    """`Taps` that also give parts of the output.

    Args:
        model: the network.
        paths: module paths, and names of parts after a colon.
        parts: splits an output into its parts, by name.

    Raises:
        TapError: when called, the output has no such part.
    """

    def __init__(
        self, model: nn.Module, paths: Collection[str], parts: Callable[[Tensor], Mapping[str, Tensor]]
    ) -> None:
        super().__init__(model, [path for path in paths if not path.startswith(PART)])
        self.split = parts
        self.names = [path for path in paths if path.startswith(PART)]

    @property
    def all_paths(self) -> tuple[str, ...]:
        """Module paths and parts: the keys of the features."""
        return (*self.paths, *self.names)

    def forward(self, inputs: Tensor) -> tuple[Any, Features]:
        output, features = super().forward(inputs)
        if not self.names:
            return output, features
        parts = {f"{PART}{name}": part for name, part in self.split(output).items()}
        for name in self.names:
            if name not in parts:
                raise TapError(f"the task's outputs have no part {did_you_mean(name, parts)}")
        return output, features | {name: parts[name] for name in self.names}
