"""A running average of a network's weights."""

import torch
from torch import Tensor, nn

from distill.models.copied import copied


def average(model: nn.Module, decay: float) -> "Average":
    """A copy of ``model`` that ``update_parameters`` moves towards it, running statistics of batch norms too.

    It is not trained itself, but saved in checkpoints, so that a resumed run goes on with it.

    Args:
        model: the network in training.
        decay: what is left of the old average after a step; in the first ones less, (1 + n) / (10 + n) after n steps:
            otherwise the first weights would stay in the average of a short training.
    """
    return Average(model, decay).requires_grad_(False).eval()


class Average(nn.Module):
    """As torch's `AveragedModel`, which reads its count of updates from the GPU twice in every step: here the count is
    read once, after a checkpoint has been loaded."""

    n_averaged: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.module, self.decay = copied(model), decay
        self.register_buffer("n_averaged", torch.tensor(0))
        self.updates: int | None = None

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """One step; the first one copies the model."""
        if self.updates is None:
            self.updates = int(self.n_averaged)
        left = min((1 + self.updates) / (10 + self.updates), self.decay) if self.updates else 0.0
        own, new = ([*network.parameters(), *network.buffers()] for network in (self.module, model))
        pairs = list(zip(own, new, strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([a for a, _ in averaged], [b for _, b in averaged], 1 - left)
        for count, value in pairs:
            if not count.is_floating_point():
                count.copy_(value)  # such as a batch norm's num_batches_tracked
        self.updates += 1
        self.n_averaged += 1
