"""Whether a network that was rewritten still computes what it did."""

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from distill.models.copied import copied

FLOAT32 = 1e-3
"""How far outputs may lie apart where values are float32, or TensorFloat32 on a GPU, in parts of the largest one."""


@torch.no_grad()
def same_outputs(one: nn.Module, other: nn.Module, images: Tensor, tolerance: float = FLOAT32) -> bool:
    """Whether two networks, in eval mode, return the same for these images.

    Computes in float64, or as the networks do where they make float32 of their values on their way.

    Args:
        one: stays as it is.
        other: stays as it is.
        images: for both.
        tolerance: how far outputs may lie apart in float64, in parts of the largest one.
    """
    try:
        return _close([copied(network).double()(images.double()) for network in (one, other)], tolerance)
    except RuntimeError:  # values of two types
        return _close([network(images) for network in (one, other)], max(tolerance, FLOAT32))


def _close(outputs: list[object], tolerance: float) -> bool:
    for first, second in zip(*map(tree_leaves, outputs), strict=True):
        if isinstance(first, Tensor):
            first, second = first.double(), second.double()
            allowed = tolerance * float(first.nan_to_num(0.0, 0.0, 0.0).abs().max())
            if first.shape != second.shape or not torch.allclose(first, second, 0.0, allowed, equal_nan=True):
                return False
    return True
