"""The network that teaches: frozen."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill.batch import Batch
from distill.training.output_parts import PartTaps


def no_parts(output: Tensor) -> Mapping[str, Tensor]:
    """Of an output that has none."""
    return {}


class Teacher(nn.Module):
    """Outputs its feature maps at ``paths``; never trains, never updates its running statistics.

    Args:
        model: the network.
        paths: its taps; ``""`` is its output.
        parts: splits its output into what taps such as ``":classes"`` name; see `distill.tasks.Task.parts`.
        batch_statistics: batch norms normalise by the batch at hand instead of by running statistics.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Collection[str],
        *,
        parts: Callable[[Tensor], Mapping[str, Tensor]] = no_parts,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.tapped = PartTaps(model.requires_grad_(False), paths, parts)
        self.batch_statistics = batch_statistics
        self.train(False)

    def train(self, mode: bool = True) -> "Teacher":
        super().train(False)
        for module in self.modules():
            if self.batch_statistics and isinstance(module, _BatchNorm):
                module.train()
                module.track_running_stats = False  # their statistics stay
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """Module paths and parts of the output: the keys of its features."""
        return self.tapped.all_paths

    @torch.no_grad()
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        _, features = self.tapped(batch.inputs)
        return features
