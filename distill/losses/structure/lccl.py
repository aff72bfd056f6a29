"""Dong et al.: More is Less: A More Complicated Network with Less Inference Complexity. arXiv:1703.08651: gates that
close.

Departs from the paper, whose gates begin half closed and are left to the task: where training is short some seeds learn
nothing then. Gates of ours begin open, and this penalty closes them as far as it is asked.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.registry.ranges import Share
from students.lccl import Gate


@loss("lccl")
class ClosingGates(nn.Module):
    """How far gates are from being zero on a part of the pixels; mean over gates, 0 where all are.

    A gate is ReLU(scale * n + shift), n of mean 0 and variance 1. Were n normal, a part ``closed`` of the gate would be
    zero where the shift is a certain multiple of the scale: counted is what it exceeds that by, and only shifts move.
    Keep the scales out of a stage's ``train``: weight decay makes gates the same everywhere, and then all open.

    Args:
        student_model: the network that is being trained, with gates (`students.lccl`).
        closed: part of the pixels.

    Raises:
        ValueError: the network has no gates.
    """

    def __init__(self, student_model: nn.Module, *, closed: Share = 0.3) -> None:
        super().__init__()
        gates = [module for module in student_model.modules() if isinstance(module, Gate)]
        if not gates:
            raise ValueError("lccl: the network has no gates; lccl_resnet20 has them")
        # in a tuple: their parameters are not this loss's
        self.layers = tuple(norm for gate in gates for norm in gate if isinstance(norm, nn.BatchNorm2d))
        self.multiple = -torch.special.ndtri(torch.tensor(closed)).item()

    def forward(self, student: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        shares = [(norm.bias - self.multiple * norm.weight.detach().abs()).relu().mean() for norm in self.layers]
        return torch.stack(shares).mean()
