"""Copies of networks, whatever they remember of their last forward."""

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Network = TypeVar("Network", bound=nn.Module)


def copied(model: Network) -> Network:
    """A deep copy. Maps that modules keep in attributes, as torchvision's RAFT does, are copied without their gradient:
    PyTorch refuses to copy what is still part of a graph."""
    kept = [
        value
        for module in model.modules()
        for value in tree_leaves(vars(module))
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in kept})
