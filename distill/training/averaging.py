"""A running average of a network's weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Move = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]


def average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``model`` that ``update_parameters`` moves towards it, running statistics of batch norms too.

    It is not trained itself, but saved in checkpoints, so that a resumed run goes on with it.

    Args:
        model: the network in training.
        decay: what is left of the old average after a step; in the first ones less, (1 + n) / (10 + n) after n steps:
            otherwise the first weights would stay in the average of a short training.
    """
    averaged = AveragedModel(model, multi_avg_fn=_moving(decay), use_buffers=True)
    return averaged.requires_grad_(False).eval()


def _moving(decay: float) -> Move:
    @torch.no_grad()
    def move(averages: Sequence[Tensor], values: Sequence[Tensor], steps: Tensor | int) -> None:
        left = torch.clamp((1 + torch.as_tensor(steps)) / (10 + torch.as_tensor(steps)), max=decay)
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, (1 - left).to(average.dtype))
            else:
                average.copy_(value)  # counts, such as a batch norm's num_batches_tracked

    return move
