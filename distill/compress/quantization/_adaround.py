"""Nagel et al.: Up or Down? Adaptive Rounding for Post-Training Quantization. arXiv:2004.10568, section 3.

Departs from the paper: the error is that of a layer's own output, before its activation function. It is a quadratic
form of the weights, so that every step sees all of the calibration data through their moments, at no cost. Of the
learned and the nearest codes, each output channel keeps those that err less.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from math import cos, pi

import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress._output_error import Moments, moments
from distill.compress.quantization._quantized import Quantized

log = logging.getLogger("distill.compress.quantize")

STEPS = 300
RATE = 0.1
GAMMA, ZETA = -0.1, 1.1
"""The sigmoid is stretched to these and cut at 0 and 1, so that gradients do not vanish there (equation 23)."""
HOT, COLD = 20.0, 2.0
"""Beta of the regulariser (equation 24) falls from the first to the second, so that values may first move freely."""
FREE = 0.2
"""So much of the steps is done without it."""
PRESSURE = 10.0
"""Of the regulariser, where the error of rounding to nearest is 1."""


def adaround(artifact: Artifact, stored: Mapping[str, Quantized], batches: Sequence[Batch]) -> dict[str, Quantized]:
    """Codes that keep the outputs of convolutions and linear layers, one layer after the other.

    A layer's inputs are those that the layers before it give, as they are rounded by then (section 3.4).
    """
    exact, coded = artifact.copy_model(), artifact.copy_model()
    weights, parameters = dict(exact.named_parameters()), dict(coded.named_parameters())
    learned: dict[str, Quantized] = {}
    unseen = []
    for name, form in stored.items():
        users = [path for path, m in exact.named_modules() if is_layer(m) and m.weight is weights[name]]
        seen = moments(exact, coded, users, batches) if users else None
        learned[name] = rounded(form, weights[name].detach(), seen) if seen else form
        with torch.no_grad():
            parameters[name].copy_(learned[name].decode())
        unseen += [] if seen else [name]
    if unseen:
        log.info("quantize: rounded to nearest, as no convolution or linear layer uses them: %s", ", ".join(unseen))
    return learned


def is_layer(module: nn.Module) -> bool:
    """Whether it is a convolution or a linear layer."""
    return type(module) in (nn.Conv2d, nn.Linear)  # what another class computes is not known


def rounded(form: Quantized, weight: Tensor, seen: Moments) -> Quantized:
    """Codes next to each weight, below or above it, that keep the output; zeros and what is clipped stay."""
    scales, nearest = form.each(form.scales).expand_as(weight), form.steps()
    exact = weight / scales
    low, high = form.limits()
    free = (weight != 0) & (exact >= low) & (exact < high)

    def matrices(values: Tensor) -> Tensor:
        return values.reshape(len(seen.inputs), -1, seen.inputs.shape[1])

    def steps(part: Tensor) -> Tensor:
        return torch.where(free, exact.floor() + part, nearest)

    bias = matrices(weight) @ seen.drift
    wrong = matrices((exact - nearest) * scales)
    unit = ((wrong @ seen.inputs) * wrong).sum()
    if not unit > 0:
        return form

    def slope(part: Tensor) -> Tensor:
        """Of the squared error, where that of rounding to nearest is 1."""
        wrong = matrices((exact - steps(part)) * scales)
        return -2 * (wrong @ seen.inputs + bias).view_as(weight) * scales * free / unit

    learned = steps(_learn(slope, exact - exact.floor()))
    errors, least = (seen.errors(matrices(weight), matrices(s * scales)).flatten() for s in (learned, nearest))
    better = (errors < least).reshape(-1, *[1] * (weight.dim() - 1))
    return form.with_steps(torch.where(better, learned, nearest))


def _learn(slope: Callable[[Tensor], Tensor], part: Tensor) -> Tensor:
    """1 where rounding up is better, else 0.

    Args:
        slope: how the error changes with what is added to each value that was rounded down, 0 to 1.
        part: what was lost by rounding down: where the search starts.
    """
    level = -((ZETA - GAMMA) / (part - GAMMA) - 1).log()
    optimizer = torch.optim.Adam([level], lr=RATE, fused=True)
    for step in range(STEPS):
        sigmoid = level.sigmoid()
        stretched = sigmoid * (ZETA - GAMMA) + GAMMA
        soft = stretched.clamp(0, 1)
        level.grad = slope(soft)
        if step >= FREE * STEPS:
            cooled = (step / STEPS - FREE) / (1 - FREE)
            beta = COLD + (HOT - COLD) * (1 + cos(pi * cooled)) / 2
            side = 2 * soft - 1  # the regulariser is the mean of 1 - |side|^beta
            level.grad -= side.abs().pow(beta - 1) * side.sign() * (2 * beta * PRESSURE / side.numel())
        level.grad *= (stretched == soft) * sigmoid * (1 - sigmoid) * (ZETA - GAMMA)
        optimizer.step()
    return (level >= 0).float()
