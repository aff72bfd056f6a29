"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.lr_scheduler import LambdaLR

from distill.schema import Optimizer, Schedule


def build_optimizer(parameters: Iterable[nn.Parameter], spec: Optimizer) -> TorchOptimizer:
    """The optimizer of a recipe; weight decay acts on every parameter, as in the papers' recipes."""
    match spec.name:
        case "sgd":
            return SGD(parameters, spec.lr, spec.momentum, weight_decay=spec.weight_decay, nesterov=spec.nesterov)
        case "adamw":
            return AdamW(parameters, spec.lr, weight_decay=spec.weight_decay)


def build_schedule(optimizer: TorchOptimizer, spec: Schedule, *, steps: int, epochs: int) -> LambdaLR:
    """A schedule that moves once per optimizer step; cosine reaches 0 at the end of the last epoch."""
    return LambdaLR(optimizer, lambda step: factor(spec, step * epochs / steps, epochs))


def factor(spec: Schedule, epoch: float, epochs: int) -> float:
    """What the learning rate is multiplied by at a (fractional) epoch."""
    if epoch < spec.warmup_epochs:
        # Half a thousandth of an epoch in place of 0: a first step of no length would be wasted.
        return max(epoch, 5e-4) / spec.warmup_epochs
    match spec.name:
        case "cosine":
            done = (epoch - spec.warmup_epochs) / max(epochs - spec.warmup_epochs, 1e-9)
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        case "step":
            # Small slack: 150 epochs counted in steps may come to 149.9999.
            return spec.gamma ** sum(epoch + 1e-6 >= milestone for milestone in spec.milestones)
        case "constant":
            return 1.0
