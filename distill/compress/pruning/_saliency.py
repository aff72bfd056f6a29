"""How much a network would miss each of its weights, by names that recipes use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.errors import RecipeError

Saliency = Literal["magnitude", "lamp", "taylor", "obd"]
TaskLoss = Callable[[Any, Batch], Tensor]
"""Loss of a network's output for a `Batch`."""


def saliencies(
    kind: Saliency, model: nn.Module, names: Sequence[str], calibration: Sequence[Batch], task_loss: TaskLoss | None
) -> dict[str, Tensor]:
    """The saliency of every value of the named parameters, never negative.

    Args:
        kind: one of four. ``magnitude``: |w|, Han et al., arXiv:1506.02626. ``lamp``: see `lamp`. ``taylor``: what the
            loss would change by to first order, |w dL/dw|, Molchanov et al., arXiv:1611.06440 and arXiv:1906.10771, the
            mean over batches. ``obd``: the same to second order at a minimum, h w^2 / 2, LeCun, Denker & Solla: Optimal
            Brain Damage (1990). The Hessian's diagonal h is that of the empirical Fisher matrix, the mean square of
            each sample's own gradient: it needs no second derivatives and no particular loss, and is never negative.
        model: in eval mode.
        names: of its parameters.
        calibration: inputs with labels; only ``taylor`` and ``obd`` look at them.
        task_loss: the loss whose change counts.

    Raises:
        RecipeError: there is nothing to differentiate.
    """
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name].detach() for name in names}
    if kind == "magnitude":
        return {name: weight.abs() for name, weight in weights.items()}
    if kind == "lamp":
        return {name: lamp(weight) for name, weight in weights.items()}
    if not calibration or task_loss is None:
        raise RecipeError(f"saliency '{kind}' is about the loss: it needs calibration batches and task_loss")
    batches = calibration if kind == "taylor" else [one for batch in calibration for one in _samples(batch)]
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for gradients in _gradients(model, names, batches, task_loss):
        for name, gradient in gradients.items():
            effect = weights[name] * gradient
            sums[name] += effect.abs() if kind == "taylor" else effect.square() / 2
    return {name: total / len(batches) for name, total in sums.items()}


def lamp(weight: Tensor) -> Tensor:
    """Lee et al.: Layer-adaptive Sparsity for the Magnitude-based Pruning. arXiv:2010.07611: each square, relative
    to the sum of all squares in its layer that are not smaller.

    It does not depend on a layer's scale, and the largest weight of every layer has 1, the largest value there is.
    """
    squares, order = weight.flatten().double().square().sort(stable=True)
    not_smaller = squares.flip(0).cumsum(0).flip(0).clamp(min=torch.finfo(torch.double).tiny)  # a layer of zeros
    return torch.empty_like(squares).scatter_(0, order, squares / not_smaller).view_as(weight)


def _gradients(
    model: nn.Module, names: Sequence[str], batches: Sequence[Batch], task_loss: TaskLoss
) -> Iterator[Mapping[str, Tensor]]:
    parameters = dict(model.requires_grad_(True).named_parameters())
    wanted = [parameters[name] for name in names]
    for batch in batches:
        loss = task_loss(model(batch.inputs), batch)
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        yield dict(zip(names, gradients, strict=True))


def _samples(batch: Batch) -> Iterator[Batch]:
    """A batch as batches of one."""
    for at in range(len(batch.inputs)):
        one = slice(at, at + 1)
        yield batch.take(one)
