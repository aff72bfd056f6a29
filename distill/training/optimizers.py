"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.lr_scheduler import LambdaLR

from distill.errors import RecipeError
from distill.recipe.schema import Optimizer, Schedule


def build_optimizer(
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]], spec: Optimizer, *, fused: bool = False
) -> TorchOptimizer:
    """The optimizer of a recipe; weight decay acts on every parameter, as in the papers' recipes.

    Args:
        parameters: all on one device, or groups of them.
        spec: the recipe's section.
        fused: one kernel for all of a step. In mixed precision Lightning cannot clip gradients with it.
    """
    shared: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay, "fused": fused or None}
    match spec.name:
        case "sgd":
            return SGD(parameters, momentum=spec.momentum, nesterov=spec.nesterov, **shared)
        case "adamw":
            return AdamW(parameters, **shared)


def parameter_groups(
    named: Mapping[str, nn.Parameter], others: Iterable[nn.Parameter], spec: Optimizer
) -> list[dict[str, Any]]:
    """Parameter groups of one learning rate each; ``others`` get ``lr``.

    Raises:
        RecipeError: no parameter matches a glob of ``lr_factors``, or an earlier one matches all that do.
    """
    usual = list(others)
    chosen: dict[str, list[nn.Parameter]] = {pattern: [] for pattern in spec.lr_factors}
    for path, parameter in named.items():
        pattern = next((pattern for pattern in chosen if fnmatch(path, pattern)), None)
        (usual if pattern is None else chosen[pattern]).append(parameter)
    for pattern, some in chosen.items():
        if not some:
            raise RecipeError(
                f"optimizer.lr_factors: '{pattern}' matches no trainable parameter that an earlier pattern leaves"
            )
    groups = [{"params": some, "lr": spec.lr_factors[pattern] * spec.lr} for pattern, some in chosen.items()]
    return [{"params": usual, "lr": spec.lr}, *groups] if usual else groups


def build_schedule(optimizer: TorchOptimizer, spec: Schedule, *, steps: int, epochs: int) -> LambdaLR:
    """A schedule that moves once per optimizer step; cosine reaches 0 at the end of the last epoch."""
    return LambdaLR(optimizer, lambda step: factor(spec, step * epochs / steps, epochs))


def factor(spec: Schedule, epoch: float, epochs: int) -> float:
    """The factor of the learning rate at a (fractional) epoch."""
    if epoch < spec.warmup_epochs:
        # Half a thousandth of an epoch in place of 0: a first step at learning rate 0 would be wasted.
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
