"""The frozen teacher."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.taps import Taps


class Teacher(nn.Module):
    """Answers a batch with its feature maps at ``paths``; never learns, never updates its batch statistics."""

    def __init__(self, model: nn.Module, paths: Collection[str]) -> None:
        super().__init__()
        self.tapped = Taps(model.requires_grad_(False), paths)
        self.train(False)

    def train(self, mode: bool = True) -> "Teacher":
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        _, features = self.tapped(batch.inputs)
        return features
