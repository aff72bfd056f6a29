"""What a network costs on paper: parameters and multiply-accumulates (MACs)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def params(model: nn.Module) -> int:
    """Number of parameter values, frozen ones and batch normalisation included; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates for one image: convolutions and matrix products, nothing else.

    Normalisation, activations, pooling and additions are left out, as published counts do. ``model`` runs once, in
    evaluation mode, and is left as it was.

    Args:
        example: (batch, channels, height, width); its first image is used.
    """
    device = next((parameter.device for parameter in model.parameters()), example.device)
    counter = FlopCounterMode(display=False)
    with evaluating(model), torch.no_grad(), counter:
        model(example[:1].to(device))
    return counter.get_total_flops() // 2


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
