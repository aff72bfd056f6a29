"""The frozen teacher."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill.batch import Batch
from distill.models.taps import Taps


class Teacher(nn.Module):
    """Answers a batch with its feature maps at ``paths``; never learns, never updates its batch statistics.

    Args:
        model: the network.
        paths: its taps; ``""`` is its output.
        batch_statistics: batch norms normalise by the batch at hand and not by what they remember.
    """

    def __init__(self, model: nn.Module, paths: Collection[str], *, batch_statistics: bool = False) -> None:
        super().__init__()
        self.tapped = Taps(model.requires_grad_(False), paths)
        self.batch_statistics = batch_statistics
        self.train(False)

    def train(self, mode: bool = True) -> "Teacher":
        super().train(False)
        for module in self.modules():
            if self.batch_statistics and isinstance(module, _BatchNorm):
                module.train()
                module.track_running_stats = False  # it remembers nothing of them
        return self

    @torch.no_grad()
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        _, features = self.tapped(batch.inputs)
        return features
